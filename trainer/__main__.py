"""`python -m trainer train | evaluate | export | fill-mask | doctor | show`."""

import sys

from records.console.command_line import Command, main
from trainer.config import (
    PRESETS,
    DoctorOptions,
    EvaluateOptions,
    ExportOptions,
    FillMaskOptions,
    ShowOptions,
    TrainOptions,
)

COMMANDS = {
    "train": Command(TrainOptions, "trainer.launch:train", "Train a masked language model on a data set.", PRESETS),
    "evaluate": Command(EvaluateOptions, "trainer.launch:evaluate", "Measure a model on the held-out split."),
    "export": Command(ExportOptions, "trainer.launch:export", "Write a run's model in HuggingFace's layout."),
    "fill-mask": Command(FillMaskOptions, "trainer.launch:fill_mask", "Fill the [MASK]s of a text."),
    "doctor": Command(DoctorOptions, "trainer.launch:doctor", "Look at all that a run would need."),
    "show": Command(ShowOptions, "trainer.launch:show", "Print sequences of a data set, and how they are masked."),
}

if __name__ == "__main__":
    sys.exit(main("python -m trainer", "Records to a model.", COMMANDS))
