"""The commands, each behind a start of TensorFlow that does not fill the screen."""

from trainer.config import DoctorOptions, EvaluateOptions, ExportOptions, FillMaskOptions, ShowOptions, TrainOptions
from trainer.start import start_tensorflow


def train(options: TrainOptions) -> int:
    """Run `train`."""
    start_tensorflow(options.run_dir, options.model, data=options.data)
    from trainer import train

    return train.train(options)


def evaluate(options: EvaluateOptions) -> None:
    """Run `evaluate`."""
    start_tensorflow(options.run_dir, options.model, data=options.data)
    from trainer.commands import evaluate

    evaluate.main(options)


def export(options: ExportOptions) -> None:
    """Run `export`."""
    start_tensorflow(options.data, options.run_dir, options.out)
    from trainer.commands import export

    export.main(options)


def fill_mask(options: FillMaskOptions) -> None:
    """Run `fill-mask`."""
    start_tensorflow(options.run_dir, options.model)
    from trainer.commands import fill_mask

    fill_mask.main(options)


def show(options: ShowOptions) -> int:
    """Run `show`."""
    start_tensorflow(options.data)
    from trainer.commands import show

    return show.main(options)


def doctor(options: DoctorOptions) -> int:
    """Run `doctor`, which starts TensorFlow itself: it may be what is wrong."""
    from trainer.commands import doctor

    return doctor.main(options)
