"""`python -m trainer train | evaluate | export | fill-mask | show`."""

import os
import sys

from records.command_line import Command, main
from trainer.config import PRESETS, EvaluateOptions, ExportOptions, FillMaskOptions, ShowOptions, TrainOptions

COMMANDS = {
    "show": Command(ShowOptions, "trainer.show:main", "Print decoded sequences, and how they are masked."),
    "train": Command(TrainOptions, "trainer.train:train", "Train a masked language model on a data set.", PRESETS),
    "evaluate": Command(EvaluateOptions, "trainer.evaluate:main", "Measure a model on the held-out split."),
    "export": Command(ExportOptions, "trainer.export:main", "Write a run's model in HuggingFace's layout."),
    "fill-mask": Command(FillMaskOptions, "trainer.fill_mask:main", "Fill the [MASK]s of a text."),
}

if __name__ == "__main__":
    # Before TensorFlow and Keras are imported, which a command does only once its options are known to be good.
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.exit(main("python -m trainer", "Records to a model.", COMMANDS))
