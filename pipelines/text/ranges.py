"""Ranges of whole numbers, by which pieces of unequal length are taken from an array at once."""

import numpy as np
from numpy.typing import NDArray


def ranges(starts: NDArray[np.integer], lengths: NDArray[np.integer]) -> NDArray[np.int64]:
    """Return the numbers of each range, range after range.

    Args:
        starts: `[N]` the first number of each range.
        lengths: `[N]` how many it has, none perhaps.

    >>> ranges(np.array([7, 0, 3]), np.array([2, 0, 3])).tolist()
    [7, 8, 3, 4, 5]
    """
    ends = np.cumsum(lengths, dtype=np.int64)
    total = int(ends[-1]) if len(ends) else 0
    return np.repeat(starts - (ends - lengths), lengths) + np.arange(total)
