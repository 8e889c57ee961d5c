"""The commands, each behind a start of TensorFlow that does not fill the screen."""

import os
import sys
import tempfile

from trainer import cloud
from trainer.config import DoctorOptions, EvaluateOptions, ExportOptions, FillMaskOptions, ShowOptions, TrainOptions


def train(options: TrainOptions) -> int:
    """Run `train`."""
    start_tensorflow(options.run_dir, options.model, data=options.data)
    from trainer import train

    return train.train(options)


def evaluate(options: EvaluateOptions) -> None:
    """Run `evaluate`."""
    start_tensorflow(options.run_dir, options.model, data=options.data)
    from trainer import evaluate

    evaluate.main(options)


def export(options: ExportOptions) -> None:
    """Run `export`."""
    start_tensorflow(options.data, options.run_dir, options.out)
    from trainer import export

    export.main(options)


def fill_mask(options: FillMaskOptions) -> None:
    """Run `fill-mask`."""
    start_tensorflow(options.run_dir, options.model)
    from trainer import fill_mask

    fill_mask.main(options)


def show(options: ShowOptions) -> int:
    """Run `show`."""
    start_tensorflow(options.data)
    from trainer import show

    return show.main(options)


def doctor(options: DoctorOptions) -> int:
    """Run `doctor`, which starts TensorFlow itself: it may be what is wrong."""
    from trainer import doctor

    return doctor.main(options)


def start_tensorflow(*paths: str, data: str = "") -> None:
    """Import TensorFlow, and show what it says meanwhile only if it cannot be imported.

    It writes past Python, and past the level of its own log, to the file descriptor of standard error.

    Args:
        paths: of what the command will read and write: whoever may not is told so before the wait.
        data: folder of the data set whose shards TensorFlow will read.
    """
    cloud.prepare(*paths, data=data)
    os.environ["KERAS_BACKEND"] = "tensorflow"  # whatever a shell or ~/.keras says: the commands train with TensorFlow
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    shown = os.dup(2)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            import keras  # noqa: F401
            import tensorflow as tf

            for gpu in tf.config.list_physical_devices("GPU"):
                tf.config.experimental.set_memory_growth(gpu, True)  # leave others what is not needed
        except BaseException:
            said.seek(0)
            os.write(shown, said.read())
            raise
        finally:
            os.dup2(shown, 2)
            os.close(shown)
