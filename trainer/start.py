"""Starts TensorFlow without filling the screen."""

import os
import sys
import tempfile

from trainer import cloud


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
