"""The exceptions whose text is written for the person at the terminal."""


class RemaskError(Exception):
    """Says where something is wrong, what was found, what was expected and what to do next.

    Every command prints the message alone, without a traceback, and exits with status 1. Anything else that escapes is
    a bug of ours and keeps its traceback.
    """


class Damaged(RemaskError):
    """What a file holds was read, and is not what was written; asking again will not help."""


class Changed(RemaskError):
    """A file was to be written only as long as it was as known, and it is not any more."""
