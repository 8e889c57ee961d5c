import numpy as np

from pipelines.shards.split import document_ids, held_out


def ids_of(count):
    return document_ids(map(str, range(count)))


def test_a_document_is_known_by_its_text_alone():
    one, same, other = document_ids(["A film.", "A " + "film.", "a film."]).tolist()
    assert one == same
    assert one != other
    assert document_ids(["", "é"]).shape == (2, 16)
    assert document_ids([]).shape == (0, 16)


def test_fractions_of_zero_and_one_are_exact():
    assert not held_out(ids_of(1000), validation_fraction=0.0).any()
    assert held_out(ids_of(1000), validation_fraction=1.0).all()
    least, half = np.zeros((1, 16), np.uint8), np.array([[0] * 15 + [128]], np.uint8)
    assert not held_out(least, validation_fraction=0.0).any()
    assert not held_out(half, validation_fraction=0.5).any()


def test_the_held_out_share_is_binomial():
    count = held_out(ids_of(40_000), validation_fraction=0.1).sum()
    # Standard deviation sqrt(40,000 * 0.1 * 0.9) = 60; five of them. The ids are fixed: it holds for ever or never.
    assert abs(count - 4000) < 300


def test_a_larger_share_holds_out_more_and_lets_nothing_back():
    small, large = (held_out(ids_of(2000), validation_fraction=fraction) for fraction in (0.05, 0.2))
    assert small.sum() < large.sum()
    assert not (small & ~large).any()


def test_the_half_that_decides_the_split_is_not_the_half_that_orders_the_shards():
    ids = np.array([[0] * 8 + [255] * 8, [255] * 8 + [0] * 8], np.uint8)
    assert held_out(ids, validation_fraction=0.5).tolist() == [False, True]
