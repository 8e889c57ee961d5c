"""`python -m records`: parses and calls."""

import sys

from records.command_line import Command, main
from records.config import VerifyOptions

COMMANDS = {
    "verify": Command(VerifyOptions, "records.verify:main", "read every shard again and hold it against the manifest"),
}

if __name__ == "__main__":
    sys.exit(main("python -m records", "Look at a data set.", COMMANDS))
