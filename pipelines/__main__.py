"""`python -m pipelines`: parses and calls."""

import sys

from pipelines.config import PRESETS, ImdbOptions, RecordsOptions
from records.console.command_line import Command, main

COMMANDS = {
    "records": Command(
        RecordsOptions, "pipelines.job:main", "Turn CSV files into a data set of TFRecord shards.", PRESETS
    ),
    "imdb": Command(
        ImdbOptions, "pipelines.sources.imdb:main", "Fetch the Large Movie Review Dataset as one CSV file."
    ),
}

if __name__ == "__main__":
    sys.exit(main("python -m pipelines", "From text to records.", COMMANDS))
