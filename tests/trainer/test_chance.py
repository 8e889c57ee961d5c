"""A statistic that cannot fail proves nothing: each is shown to pass on numpy's randomness, and to fail on a bias."""

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.trainer import chance
from tests.trainer.chance import BOUND


@pytest.fixture
def draw() -> np.random.Generator:
    return np.random.default_rng(0)


def drawn(draw: np.random.Generator, rows: int, places: int, count: int) -> NDArray[np.bool_]:
    """Return which places each row draws, without replacement."""
    return draw.permuted(np.tile(np.arange(places) < count, (rows, 1)), axis=1)


def test_share(draw):
    assert abs(chance.of_share(draw.binomial(100_000, 0.3), trials=100_000, p=0.3)) < BOUND
    assert abs(chance.of_share(31_000, trials=100_000, p=0.3)) > BOUND


def test_uniform(draw):
    numbers = draw.integers(50, size=100_000)
    assert abs(chance.of_uniform(np.bincount(numbers))) < BOUND
    assert chance.of_uniform(np.bincount(np.where(numbers % 10, numbers, 1))) > BOUND
    assert chance.of_uniform([1000] * 50) < -BOUND  # too even


def test_table(draw):
    rows, columns = draw.integers(4, size=(2, 100_000))
    assert abs(chance.of_table(chance.table(rows, columns, shape=(4, 4)))) < BOUND
    alike = np.where(draw.random(100_000) < 0.05, rows, columns)
    assert chance.of_table(chance.table(rows, alike, shape=(4, 4))) > BOUND


@pytest.mark.parametrize(("places", "count"), [(126, 19), (63, 9), (10, 2), (10, 9)])
def test_formulae(draw, places, count):
    """Over many repetitions z has mean 0 and deviation 1: the formulae are right, and not just small."""
    repeated = [drawn(draw, 2_000, places, count) for _ in range(60)]
    for statistic in (
        chance.of_draws,
        lambda chosen: chance.of_runs(chosen, drawn=count),
        lambda chosen: chance.of_overlap(chosen[1:], chosen[:-1], drawn=count),
    ):
        found = np.array([statistic(chosen) for chosen in repeated])
        assert abs(found.mean()) < BOUND / 60**0.5
        assert abs(found.std() - 1) < BOUND / (2 * 60) ** 0.5  # the deviation of a deviation is 1 / sqrt(2 n)


def test_draws_that_are_biased(draw):
    chosen = drawn(draw, 20_000, 126, 19)
    early = np.where(draw.random((20_000, 1)) < 0.1, np.arange(126) < 19, chosen)
    assert chance.of_draws(early) > BOUND
    assert chance.of_runs(early, drawn=19) > BOUND
    assert chance.of_overlap(chosen, np.where(draw.random((20_000, 1)) < 0.1, chosen, early), drawn=19) > BOUND
    assert chance.of_overlap(chosen, ~chosen, drawn=19) < -BOUND


def test_dispersion(draw):
    assert abs(chance.of_dispersion(draw.binomial(19, 0.8, 20_000), trials=19, p=0.8)) < BOUND
    assert chance.of_dispersion(np.full(20_000, 15), trials=19, p=0.8) < -BOUND
    assert chance.of_dispersion(draw.integers(12, 20, 20_000), trials=19, p=0.8) > BOUND
