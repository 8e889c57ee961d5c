from collections import Counter

from pipelines.split import document_id, split_of


def test_a_document_is_known_by_its_text_alone():
    assert document_id("A film.") == document_id("A " + "film.")
    assert document_id("A film.") != document_id("a film.")
    assert len(document_id("")) == 16


def test_fractions_of_zero_and_one_are_exact():
    ids = [document_id(str(number)) for number in range(1000)]
    assert {split_of(id_, validation_fraction=0.0) for id_ in ids} == {"train"}
    assert {split_of(id_, validation_fraction=1.0) for id_ in ids} == {"validation"}


def test_the_held_out_share_is_binomial():
    count = Counter(split_of(document_id(str(number)), validation_fraction=0.1) for number in range(40_000))
    # Standard deviation sqrt(40,000 * 0.1 * 0.9) = 60; five of them. The ids are fixed: it holds for ever or never.
    assert abs(count["validation"] - 4000) < 300


def test_a_larger_share_holds_out_more_and_lets_nothing_back():
    ids = [document_id(str(number)) for number in range(2000)]
    small, large = ({i for i in ids if split_of(i, validation_fraction=f) == "validation"} for f in (0.05, 0.2))
    assert small < large


def test_the_half_that_decides_the_split_is_not_the_half_that_orders_the_shards():
    assert split_of(b"\x00" * 8 + b"\xff" * 8, validation_fraction=0.5) == "train"
    assert split_of(b"\xff" * 8 + b"\x00" * 8, validation_fraction=0.5) == "validation"
