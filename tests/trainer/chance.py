"""How far a statistic is from what chance alone would make of it, in standard deviations.

Whatever is tested is a function of fixed seeds, so a test that passes once passes always; the bound says how much that
is worth. `|z| < BOUND` is missed by chance alone once in 1.7 million (two-sided normal tail beyond 5). Counts are large
enough here for the normal approximations: expected counts of 50 and more in each cell.
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

BOUND = 5.0


def of_sum(observed: float, *, mean: float, variance: float) -> float:
    """Return z of a sum of many independent terms (central limit theorem)."""
    return (float(observed) - mean) / math.sqrt(variance)


def of_share(observed: float, *, trials: float, p: float) -> float:
    """Return z of a binomial count."""
    return of_sum(observed, mean=trials * p, variance=trials * p * (1 - p))


def of_chi_square(chi_square: float, *, freedom: int) -> float:
    """Return z of a chi-square: its cube root is nearly normal (Wilson and Hilferty 1931)."""
    spread = 2 / (9 * freedom)
    return ((float(chi_square) / freedom) ** (1 / 3) - (1 - spread)) / math.sqrt(spread)


def of_uniform(counts: ArrayLike) -> float:
    """Return z of counts that should be equal, each trial being counted in one cell."""
    found = np.asarray(counts, float)
    mean = found.mean()
    return of_chi_square(((found - mean) ** 2 / mean).sum(), freedom=len(found) - 1)


def of_table(table: NDArray) -> float:
    """Return z of Pearson's chi-square for independence of rows and columns; infinite where one of them is empty."""
    expected = table.sum(1, keepdims=True) * table.sum(0, keepdims=True) / table.sum()
    if not expected.all():
        return math.inf
    rows, columns = table.shape
    return of_chi_square(((table - expected) ** 2 / expected).sum(), freedom=(rows - 1) * (columns - 1))


def table(rows: NDArray[np.integer], columns: NDArray[np.integer], *, shape: tuple[int, int]) -> NDArray[np.int64]:
    """Count how often each row occurs together with each column."""
    return np.bincount(rows * shape[1] + columns, minlength=shape[0] * shape[1]).reshape(shape)


def of_draws(chosen: NDArray[np.bool_]) -> float:
    """Return z of how often each place is drawn, where each row draws equally many, without replacement.

    Drawing m of N, a place's count over R rows has variance R p (1 - p) with p = m / N, and any two counts have
    covariance -R p (1 - p) / (N - 1): N / (N - 1) times that of a multinomial's counts, up to the factor. So the sum of
    squares is N / (N - 1) times a chi-square of N - 1 degrees of freedom.
    """
    rows, places = chosen.shape
    p = chosen.sum() / chosen.size
    counts = chosen.sum(0)
    squares = ((counts - rows * p) ** 2).sum() / (rows * p * (1 - p))
    return of_chi_square(squares * (places - 1) / places, freedom=places - 1)


def of_overlap(one: NDArray[np.bool_], other: NDArray[np.bool_], *, drawn: int) -> float:
    """Return z of how many places two rows share that each draw so many: hypergeometric, summed over rows."""
    rows, places = one.shape
    p = drawn / places
    variance = drawn * p * (1 - p) * (places - drawn) / (places - 1)
    return of_sum((one & other).sum(), mean=rows * drawn * p, variance=rows * variance)


def of_runs(chosen: NDArray[np.bool_], *, drawn: int) -> float:
    """Return z of how many pairs of neighbours are drawn together, where each row draws equally many.

    m of N places in a row form R runs, and m - R pairs. R is hypergeometric: of the N - m + 1 gaps between the places
    not drawn, and m - 1 joints, m are taken (Wald and Wolfowitz 1940).
    """
    rows, places = chosen.shape
    gaps = places - drawn + 1
    mean = drawn * gaps / places
    variance = drawn * (gaps / places) * ((drawn - 1) / places) * (places - drawn) / (places - 1)
    pairs = (chosen[:, 1:] & chosen[:, :-1]).sum()
    return of_sum(pairs, mean=rows * (drawn - mean), variance=rows * variance)


def of_dispersion(counts: NDArray[np.integer], *, trials: int, p: float) -> float:
    """Return z of the spread of binomial counts: too even and too uneven both show.

    The squared standardized count has mean 1 and variance 2 + (1 - 6 p q) / (n p q), from the binomial's kurtosis.
    """
    npq = trials * p * (1 - p)
    squares = (counts - trials * p) ** 2 / npq
    variance = 2 + (1 - 6 * p * (1 - p)) / npq
    return of_sum(squares.sum(), mean=len(counts), variance=len(counts) * variance)
