"""`python -m records`: parses and calls."""

import sys

from records.config import VerifyOptions
from records.console.command_line import Command, main

COMMANDS = {
    "verify": Command(
        VerifyOptions, "records.format.verify:main", "read every shard again and hold it against the manifest"
    ),
}

if __name__ == "__main__":
    sys.exit(main("python -m records", "Look at a data set.", COMMANDS))
