import csv
import re
from itertools import islice

from pipelines import sample
from pipelines.clean import clean
from trainer.config import PROBES

MANY = list(islice(sample.reviews(4000, seed=0), 4000))


def texts():
    return [clean(text).lower() for text in MANY]


def test_a_review_depends_on_the_seed_and_its_number_alone():
    assert list(sample.reviews(5, seed=0)) == MANY[:5]
    assert list(sample.reviews(5, seed=1)) != MANY[:5]


def test_the_probes_are_not_in_the_corpus_but_what_fills_them_is():
    every = " ".join(texts())
    for probe in PROBES:
        before, after = probe.lower().split("[mask]")
        assert not re.search(re.escape(before) + r"\S+" + re.escape(after), every)
    for word in ("movie", "film", "picture", "awesome", "acting", "watched"):
        assert every.count(f" {word}") > 100


def test_cleaning_has_work_and_few_reviews_are_alike():
    assert sum("<br />" in text for text in MANY) > 100
    assert any(not text.isascii() for text in MANY)
    assert any('"' in text for text in MANY)
    assert len(set(texts())) > 0.99 * len(MANY)


def test_articles_agree_and_no_slot_of_the_grammar_is_left_open():
    every = " ".join(texts())
    assert not re.search(r"[{}|]", every)
    assert not re.search(r"\ba [aeiou]", every)
    assert not re.search(r"\ban (?!hour)[^aeiou]", every)


def test_the_csv_looks_like_that_of_imdb(tmp_path):
    path = tmp_path / "sample.csv"
    sample.write_csv(str(path), count=50, seed=0)
    with path.open(encoding="utf-8", newline="") as file:
        header, *lines = csv.reader(file)
    assert header == ["row_Number", "text", "polarity"]
    assert [line[0] for line in lines] == [str(number) for number in range(50)]
    assert [line[1] for line in lines] == [text for text in MANY[:50]]
    assert {line[2] for line in lines} == {"0", "1"}
