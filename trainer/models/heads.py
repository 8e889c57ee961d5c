"""How many attention heads weights look as if they had: their shapes do not tell, and a wrong number fills in noise."""

import numpy as np
from numpy.typing import NDArray

_CLEAR = 20.0
"""A spread below this is chance, or a model that has learnt little: of random weights it is about 1."""

_BETTER = 1.5
"""How much wider the spread has to be for another number of heads than for that which is given."""


def seen(norms: NDArray[np.floating], *, given: int) -> int:
    """Return the number of heads that weights look as if they had; the one given where they do not tell.

    While a model learns, its heads come to differ: the rows of a head's matrices are about as long as each other, and
    longer or shorter than another head's. For a sentence model of 12 heads of 32 the spread is 110 where rows are taken
    together by 32, and 54 at most where they are taken together otherwise.

    Args:
        norms: lengths of the rows of query, key and value matrices, positive, `[matrices, hidden_size]`.
        given: how many heads a config says that there are.

    >>> norms = np.exp(np.repeat([[0.0, 1.0, 0.5, 2.0]], 8, axis=1) + 0.01 * np.cos(np.arange(32)))
    >>> seen(norms, given=4), seen(norms, given=2), seen(np.exp(np.cos(np.arange(32.0)))[None], given=2)
    (4, 4, 2)
    """
    width = norms.shape[1]
    numbers = [heads for heads in range(2, width // 2 + 1) if width % heads == 0]
    spreads = {heads: _spread(np.log(norms), heads) for heads in numbers}
    best = max(spreads, key=spreads.__getitem__, default=given)
    is_clear = spreads.get(best, 0.0) > max(_CLEAR, _BETTER * spreads.get(given, 0.0))
    return best if is_clear else given


def _spread(values: NDArray[np.floating], heads: int) -> float:
    """Return how much wider heads lie apart than the values within one would have it: the median F of all matrices."""
    parts = values.reshape(len(values), heads, -1)
    between = parts.shape[2] * parts.mean(axis=2).var(axis=1, ddof=1)
    within = parts.var(axis=2, ddof=1).mean(axis=1)
    return float(np.median(between / np.maximum(within, np.finfo(np.float32).tiny)))
