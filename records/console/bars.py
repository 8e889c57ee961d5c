"""What a bar shows where the terminal is narrow."""

import shutil

_NARROW = "{percentage:3.0f}% {rate_fmt}, {remaining} left"
_WIDE_ENOUGH = 72  # columns, for all that tqdm shows by itself


def layout(columns: int = 0) -> str | None:
    """Return tqdm's format of a bar whose total is known; None for its own.

    Args:
        columns: of the terminal; 0 to ask for them.

    >>> layout(80), layout(40)
    (None, '{percentage:3.0f}% {rate_fmt}, {remaining} left')
    """
    return None if (columns or shutil.get_terminal_size().columns) >= _WIDE_ENOUGH else _NARROW
