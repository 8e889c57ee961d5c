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


class Full(RemaskError):
    """A disk has no room left for what was to be written, or a quota none.

    Args:
        said: where, and what the system says of it.
        hint: what to do next, where whoever asked for it knows nothing better.
    """

    def __init__(self, said: str, hint: str) -> None:
        super().__init__(f"{said}; {hint}")
        self.said, self.hint = said, hint

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        """Say how to copy it to another process."""
        return type(self), (self.said, self.hint)
