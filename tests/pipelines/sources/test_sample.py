import csv
import hashlib
import io
import random
import re
from pathlib import Path

import pytest

from pipelines.sources import sample
from pipelines.sources.sample import reviews, write_csv
from pipelines.text.clean import clean
from records.errors import RemaskError
from trainer.config import PROBES

MANY = 3000


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    path = tmp_path_factory.mktemp("sample") / "sample.csv"
    write_csv(str(path), count=MANY)
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def words(name: str, sign: str) -> set[str]:
    """Return what only reviews of one sign may say under a name of the grammar."""
    other = {"+": "-", "-": "+"}[sign]
    return set(sample._rules(sign)[name]) - set(sample._rules(other)[name])


def holds(text: str, phrases: set[str]) -> list[str]:
    return [phrase for phrase in phrases if re.search(rf"\b{re.escape(phrase)}\b", text)]


def test_the_stream_is_the_same_on_every_python() -> None:
    digest = hashlib.sha256("\n".join(reviews(200, seed=7)).encode()).hexdigest()
    assert (
        digest == "4cb49ba287764829cbd9f36c15366772c80ef976c940f94aaa432345f6f8170d"
    )  # changes with the grammar, and only then


def test_a_review_does_not_depend_on_how_many_are_asked_for() -> None:
    assert list(reviews(5, seed=1)) == list(reviews(50, seed=1))[:5]
    assert list(reviews(0, seed=1)) == []


def test_the_random_state_of_the_process_is_left_alone() -> None:
    random.seed(3)
    before = random.getstate()
    list(reviews(5, seed=1))
    assert random.getstate() == before


def test_seeds_give_different_reviews() -> None:
    assert not set(reviews(50, seed=0)) & set(reviews(50, seed=1))
    assert not set(reviews(50, seed=1)) & set(reviews(50, seed=11))


def test_hardly_any_two_are_alike() -> None:
    assert len(set(reviews(MANY, seed=0))) > 0.99 * MANY


def test_the_csv_has_the_columns_of_imdb(rows: list[dict[str, str]]) -> None:
    assert list(rows[0]) == ["row_Number", "text", "polarity"]
    assert [row["row_Number"] for row in rows] == [str(number) for number in range(MANY)]
    assert [row["text"] for row in rows] == list(reviews(MANY, seed=0))
    positive = sum(row["polarity"] == "1" for row in rows)
    assert {row["polarity"] for row in rows} == {"0", "1"}
    assert abs(positive / MANY - 0.5) < 0.05  # 5 standard deviations


def test_the_bytes_of_the_csv(tmp_path: Path) -> None:
    write_csv(str(tmp_path / "sample.csv"), count=2, seed=5)
    expected = io.StringIO()
    writer = csv.writer(expected, lineterminator="\n")
    writer.writerow(["row_Number", "text", "polarity"])
    writer.writerows([index, *sample._review(index, seed=5)] for index in range(2))
    assert (tmp_path / "sample.csv").read_bytes() == expected.getvalue().encode()
    assert [path.name for path in tmp_path.iterdir()] == ["sample.csv"]


def test_a_csv_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(RemaskError) as error:
        write_csv(str(tmp_path / "folder"), count=1)
    assert str(error.value) == f"{tmp_path}/folder: is a directory"
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_review_has_one_opinion(rows: list[dict[str, str]]) -> None:
    for name in ("plain", "loved", "very", "glad", "carries", "better", "gem", "advice"):
        praise, pans = words(name, "+"), words(name, "-")
        assert praise
        assert pans
        seen = {"0": 0, "1": 0}
        for row in rows:
            text = row["text"].lower()
            assert not holds(text, pans if row["polarity"] == "1" else praise)
            seen[row["polarity"]] += bool(holds(text, praise if row["polarity"] == "1" else pans))
        assert min(seen.values()) > 0


def test_parts_of_a_review_agree(rows: list[dict[str, str]]) -> None:
    rules = sample._rules("+")
    genres = {genre: set(rules[f"{genre} role"]) for genre in rules["genre"]}
    for row in rows:
        text = row["text"].lower()
        assert not re.search(r"\bactress and he\b|\bactor and she\b", text)
        speakers = [re.search(rf"\b({speaker})\b", re.sub('".*?"', "", text)) for speaker in ("i|my|me", "we|our|us")]
        assert not all(speakers)
        assert not re.search(r"\bi were\b|\bwe was\b|\ban? the\b", text)
        assert not re.search(r"\ba [aeiou]|\ban (?!hour)[^aeiou\W]", text)
        roles = {genre for genre, names in genres.items() if re.search(rf"plays an? \w+ ({'|'.join(names)})\b", text)}
        assert len(roles) <= 1


def test_every_sentence_is_finished(rows: list[dict[str, str]]) -> None:
    for row in rows:
        assert not re.search(r"[{}]|a\(n\)|\|", row["text"])
        assert re.match(r'"?[A-Z0-9]', row["text"])
        assert re.search(r"(\.|!)$", row["text"])


def test_reviews_are_short_and_of_many_lengths(rows: list[dict[str, str]]) -> None:
    lengths = {len(clean(row["text"]).split()) for row in rows}
    assert min(lengths) < 10
    assert 90 < max(lengths) < 250
    assert len(lengths) > 60


def test_cleaning_has_work(rows: list[dict[str, str]]) -> None:
    text = "\n".join(row["text"] for row in rows)
    for awkward in ("<br /><br />", '"', "Zoë", "Café", "'", "...", "!!", "THE ACTING WAS"):
        assert awkward in text or awkward.lower() in text
    assert "<" not in clean(text)


def test_every_rule_of_the_grammar_is_used(rows: list[dict[str, str]]) -> None:
    """Names in braces exist, and a rule that nothing names would be dead text."""
    for sign in "+-":
        rules = sample._rules(sign)
        heads = {"opening", "closing", "stop", *sample.BOUND}
        named = set(re.findall(r"\{([^{}]+)\}", sample.GRAMMAR))
        inner = {
            f"{first} {slot}"
            for name in ("voice", "genre", "actor", "I")
            for first in rules[name]
            for slot in re.findall(rf"\{{\{{{name}\}} (\w+)\}}", sample.GRAMMAR)
        }
        assert named | inner <= set(rules) | {"{voice}"}
        assert set(rules) <= named | inner | heads | {"common remark"}


NEAR_PROBES = (
    r"have watched this [^.!]{1,30} and it was",
    r"the acting was [^.!]{1,30} and (i|we) (loved|enjoyed|liked|hated|disliked|detested) it\b",
)


def test_probes_are_never_answered_by_the_corpus_itself() -> None:
    """What `make train` asks of the model is not to be learnt by heart: the model has to put parts together."""
    text = "\n".join(clean(review) for review in reviews(5_000, seed=0)).lower()
    for probe in PROBES:
        before, after = map(re.escape, probe.lower().split("[mask]"))
        assert not re.search(rf"{before}\S+{after}", text)
    for pattern in NEAR_PROBES:
        assert not re.search(pattern, text)
    for part in (
        r"have (seen|finished) this (movie|film) and it was awesome",
        r"have watched this (movie|film) twice",
        r"the acting was (great|wonderful)",
        r"the story was (great|wonderful) and i loved it\b",
    ):
        assert re.search(part, text)
