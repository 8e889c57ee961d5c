import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from records.errors import RemaskError
from records.format import manifest
from records.format.manifest import FORMAT_VERSION, Data, Manifest, Shard, Source, Tokenizer, shard_file
from tests.records.made import toy_tokenizer
from tests.said import must_name

HELD_OUT = Shard("validation-00000-of-00001.tfrecord", 2, 2, 60, 444, "12345678", "0000000000000078")
AGAIN = "'make records CSV=... OUT=out ARGS=--overwrite'"
MADE = Manifest(
    Data(
        max_seq_length=128,
        long_text="pack",
        validation_fraction=0.05,
        compression="gzip",
        tokenizer=Tokenizer.of(toy_tokenizer()),
        splits={
            "train": (
                Shard("train-00000-of-00002.tfrecord", 5, 7, 300, 999, "0000000a", "000000000000000b"),
                Shard("train-00001-of-00002.tfrecord", 6, 8, 400, 1200, "ffffffff", "00000000000000ff"),
            ),
            "validation": (HELD_OUT,),
        },
        sources=(Source("Kritik ü.csv", 20, 13, {"duplicate": 4, "malformed": 3}, 1, 0),),
    ),
    {"package_version": "0.1.0", "seconds": 1.5},
    FORMAT_VERSION,
)


def refusal(text: str | bytes) -> str:
    with pytest.raises(RemaskError) as caught:
        Manifest.from_json(text, name="out/manifest.json")
    return str(caught.value)


def changed(**changes: object) -> str:
    return json.dumps({**json.loads(MADE.to_json()), **changes})


def test_what_is_written_is_what_is_read():
    assert Manifest.from_json(MADE.to_json()) == MADE
    assert Manifest.from_json(MADE.to_json().encode()) == MADE
    assert Manifest.from_json(MADE.to_json()).to_json() == MADE.to_json()


def test_text_is_for_people_too():
    assert '"file": "Kritik ü.csv"' in MADE.to_json()
    assert MADE.to_json().endswith("}\n")


def test_totals():
    assert (MADE.examples("train"), MADE.examples("validation")) == (11, 2)
    assert (MADE.tokens("train"), MADE.tokens("validation")) == (700, 60)


def test_description_of_a_tokenizer():
    artifact = toy_tokenizer(words=40)
    assert Tokenizer.of(artifact) == Tokenizer(
        name="toy",
        sha256=artifact.sha256,
        vocab_size=52,
        pad_id=0,
        cls_id=2,
        sep_id=3,
        mask_id=4,
        special_ids=(0, 1, 2, 3, 4),
        config_sha256=artifact.config_sha256,
    )


@pytest.mark.parametrize(
    ("split", "fraction", "names"),
    [
        ("validation", 0.0, ("held out", "validation_fraction 0 asks")),
        ("validation", 0.05, ("held out", "13 documents", "0.05", "chance")),
        ("train", 0.95, ("train on", "0.95", "all of 13")),
    ],
)
def test_why_a_split_is_empty(split, fraction, names):
    other = "train" if split == "validation" else "validation"
    splits = {split: (), other: (dataclasses.replace(HELD_OUT, file=shard_file(other, 0, 1), segments=13),)}
    data = dataclasses.replace(MADE.data, splits=splits, validation_fraction=fraction)
    empty = dataclasses.replace(MADE, data=data)
    assert [name for name in names if name not in empty.why_empty(split)] == []
    assert [MADE.why_empty(each) for each in ("train", "validation")] == ["", ""]


def test_digest_is_that_of_the_data_alone():
    read = Manifest.from_json(MADE.to_json())
    assert read.digest() == MADE.digest()
    assert dataclasses.replace(MADE, job={"package_version": "9"}).digest() == MADE.digest()


def test_digest_does_not_depend_on_what_files_are_called():
    """Else a run could not be continued once its input, or the folder of its tokenizer, has another name."""
    renamed = dataclasses.replace(MADE.data.tokenizer, name="elsewhere")
    data = dataclasses.replace(MADE.data, tokenizer=renamed, sources=())
    assert dataclasses.replace(MADE, data=data).digest() == MADE.digest()


def test_digest_stays_what_it_is():
    """Checkpoints hold it: where it changes, no run can be continued on its data any more."""
    data = Data(8, "pack", 0.1, "", Tokenizer("t", "ab", 9, 0, 2, 3, 4, (0, 2)), {"train": (), "validation": ()}, ())
    assert (
        Manifest(data, {}, FORMAT_VERSION).digest()
        == "6e878e9da98a271879b3c23008617ba2906d86e1a50aaf750d9c8f10045a5d5d"
    )


@pytest.mark.parametrize(
    "change",
    [
        {"max_seq_length": 127},
        {"splits": {**MADE.data.splits, "validation": ()}},
        {"tokenizer": dataclasses.replace(MADE.data.tokenizer, sha256="0" * 64)},
        {
            "splits": {
                **MADE.data.splits,
                "validation": (dataclasses.replace(HELD_OUT, crc32c="12345679"),),
            }
        },
    ],
)
def test_digest_sees_each_change_of_the_data(change):
    assert dataclasses.replace(MADE, data=dataclasses.replace(MADE.data, **change)).digest() != MADE.digest()


def but(*path: str | int, value: object) -> str:
    """Return the good manifest with one value replaced."""
    changed = json.loads(MADE.to_json())
    place = changed
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return json.dumps(changed)


def without(*path: str | int) -> str:
    """Return the good manifest without one of its fields."""
    changed = json.loads(MADE.to_json())
    place = changed
    for step in path[:-1]:
        place = place[step]
    del place[path[-1]]
    return json.dumps(changed)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", "null", '{"data": 1}', b"\xff\xfe\x00", '{"format_version": 2, "job": 3}']
)
def test_what_is_no_manifest_is_refused(text):
    said = refusal(text)
    must_name(said, "out/manifest.json:", "copy it again", AGAIN)


@pytest.mark.parametrize("version", [0, 1, 3])
def test_another_version_is_refused(version):
    must_name(
        refusal(changed(format_version=version)),
        "out/manifest.json:",
        f"found format version {version}",
        "expected 2",
        AGAIN,
        "the remask that wrote them (0.1.0)",
    )


@pytest.mark.parametrize("text", ['{"format_version": 7}', '{"format_version": 1, "job": 3, "data": []}'])
def test_another_version_may_look_quite_different(text):
    assert "or use the remask that wrote them (unknown)" in refusal(text)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (but("data", value=[]), ("data:", "[]", "object")),
        (but("job", value=None), ("job:", "null", "object")),
        (but("format_version", value="2"), ("format_version:", '"2"', "2")),
        (but("data", "splits", value={"train": []}), ("data:", "train", "validation")),
        (but("data", "splits", value={"train": [], "validation": [], "test": []}), ("data:", "test")),
        (but("data", "splits", value=[]), ("data.splits:", "[]")),
        (but("data", "splits", "validation", value=[{}]), ("data.splits.validation[0].file:", "nothing")),
        (but("data", "splits", "train", 1, "tokens", value=None), ("data.splits.train[1].tokens:", "null", "integer")),
        (but("data", "splits", "train", 1, "bytes", value=[9]), ("data.splits.train[1].bytes:", "[9]", "integer")),
        (but("data", "splits", "train", 1, "examples", value=0), ("data.splits.train[1].examples:", "0", "at least 1")),
        (but("data", "splits", "train", 1, "segments", value=-1), ("data.splits.train[1].segments:", "at least 0")),
        (but("data", "splits", "train", 1, "file", value=9), ("data.splits.train[1].file:", "9", "string")),
        *(
            (but("data", "splits", "train", 1, "file", value=name), ("data.splits.train[1].file:", "name of a file"))
            for name in ("", ".", "..", "a/b", "../train-0", "/train-0", "a\\b", "a\0")
        ),
        (but("data", "splits", "train", 1, "file", value=HELD_OUT.file), ("data:", HELD_OUT.file, "twice")),
        (but("data", "splits", "train", 0, "crc32c", value="zz00000a"), ("train[0].crc32c:", "hexadecimal")),
        (but("data", "splits", "train", 0, "crc32c", value="0A00000A"), ("train[0].crc32c:", "hexadecimal")),
        (but("data", "splits", "train", 0, "sum64", value="0b"), ("train[0].sum64:", "16 hexadecimal")),
        (but("data", "sources", 0, "rows", value=21), ("data.sources[0]:", "21", "Kritik", "13", "7")),
        (but("data", "sources", 0, "dropped", value={"duplicate": "4"}), ("data.sources[0].dropped.duplicate:",)),
        (but("data", "sources", 0, "dropped", value={"a": 10, "b": -3}), ("data.sources[0].dropped.b:", "-3")),
        (but("data", "tokenizer", "special_ids", value=3), ("data.tokenizer.special_ids:", "3", "list")),
        (but("data", "tokenizer", "special_ids", 0, value=True), ("data.tokenizer.special_ids[0]:", "true")),
        (but("data", "tokenizer", "vocab_size", value=0), ("data.tokenizer.vocab_size:", "0")),
        (but("data", "tokenizer", "sha256", value=""), ("data.tokenizer.sha256:", "64 hexadecimal")),
        (but("data", "tokenizer", "config_sha256", value="ab"), ("data.tokenizer.config_sha256:", "64 hexadecimal")),
        (but("data", "compression", value="zip"), ("data.compression:", "gzip")),
        (but("data", "validation_fraction", value=-0.1), ("data.validation_fraction:", "-0.1")),
        (but("data", "validation_fraction", value=1.1), ("data.validation_fraction:", "1.1")),
        (but("data", "max_seq_length", value=0), ("data.max_seq_length:", "0")),
        (but("data", "max_seq_length", value=1 << 40), ("data.max_seq_length:", "at most 65536")),
        (but("data", "synthetic", value=0), ("data.synthetic:", "0", "boolean")),
        (but("data", "more", value=1), ("data.more:", "does not know")),
    ],
    ids=lambda each: "" if isinstance(each, str) else " ".join(each),
)
def test_a_wrong_value_is_refused_by_its_place(text, names):
    said = refusal(text)
    must_name(said, "copy it again", AGAIN)
    assert len(said.splitlines()) == 1
    assert [name for name in names if name not in said] == []


TRAIN = [shard_file("train", number, 2) for number in range(2)]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (
            but("data", "splits", "train", 1, "file", value=shard_file("validation", 0, 2)),
            ("validation-00000-of-00002",),
        ),
        (but("data", "splits", "train", 1, "file", value=shard_file("train", 1, 8)), ("train-00001-of-00008",)),
        (but("data", "splits", "train", 1, "file", value=shard_file("train", 3, 2)), ("train-00003-of-00002",)),
        (but("data", "splits", "train", 1, "file", value="train-1-of-2.tfrecord"), ("train-1-of-2", TRAIN[1])),
        (but("data", "splits", "train", 1, "file", value="notes.txt"), ("notes.txt", TRAIN[1])),
        (but("data", "splits", "train", value=json.loads(MADE.to_json())["data"]["splits"]["train"][::-1]), (*TRAIN,)),
        (but("data", "splits", "train", value=json.loads(MADE.to_json())["data"]["splits"]["train"][:1]), (TRAIN[0],)),
        (
            but(
                "data",
                "splits",
                "validation",
                0,
                value={**dataclasses.asdict(MADE.data.splits["train"][1]), "file": HELD_OUT.file},
            ),
            (TRAIN[1], HELD_OUT.file, "the same"),
        ),
        (
            but("data", "splits", "train", 0, "segments", value=4),
            (TRAIN[0], "4 segments", "5 sequences", "at least one"),
        ),
        (but("data", "long_text", value="window"), (TRAIN[0], "7 segments", "5 sequences", "long_text is window")),
        (but("data", "splits", "train", 0, "tokens", value=13), (TRAIN[0], "13 tokens", "14 to 640")),
        (but("data", "splits", "train", 0, "tokens", value=641), (TRAIN[0], "641 tokens", "14 to 640")),
        (
            but(
                "data",
                "sources",
                0,
                value={**json.loads(MADE.to_json())["data"]["sources"][0], "rows": 25, "documents": 18},
            ),
            ("17 segments", "18 documents", "at least one"),
        ),
    ],
)
def test_shards_and_counts_that_contradict_each_other(text, names):
    said = refusal(text)
    assert said.startswith("out/manifest.json: data: found ")
    assert said.endswith(f"; copy it again, or make the records again with {AGAIN}")
    assert [name for name in names if name not in said] == []


def test_of_truncated_texts_each_is_one_segment():
    one = [dataclasses.replace(HELD_OUT, file=TRAIN[0][:12] + "of-00001.tfrecord", examples=13, segments=13)]
    splits = {"train": tuple(one), "validation": ()}
    whole = dataclasses.replace(MADE.data, long_text="truncate", splits=splits)
    whole.check()
    with pytest.raises(ValueError, match="13 segments in all shards and 12 documents in all sources, expected one of"):
        dataclasses.replace(whole, sources=(dataclasses.replace(MADE.data.sources[0], rows=19, documents=12),)).check()


def paths(value: object, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, each in inner for found in paths(each, (*path, key)))]


PATHS = [path for path in paths(json.loads(MADE.to_json())) if path]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(PATHS), JSON)
def test_whatever_stands_anywhere_is_read_as_it_is_or_refused(path, value):
    text = but(*path, value=value)
    try:
        made = Manifest.from_json(text)
    except RemaskError:
        return
    assert json.loads(made.to_json()) == json.loads(text)


@pytest.mark.parametrize("path", [path for path in PATHS if isinstance(path[-1], str)], ids=str)
def test_each_field_has_to_be_there(path):
    """But for those that older manifests lack, what the job says of itself, and why rows were dropped."""
    if (path[0] == "job" and len(path) > 1) or path in (("data", "synthetic"), ("data", "tokenizer", "config_sha256")):
        assert Manifest.from_json(without(*path)).digest() == MADE.digest()
    else:
        assert refusal(without(*path))


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(RemaskError) as caught:
        manifest.load(f"{tmp_path}/none")
    must_name(str(caught.value), f"{tmp_path}/none:", "no such folder", f"'make records CSV=... OUT={tmp_path}/none'")


def test_a_folder_without_a_manifest(tmp_path):
    (tmp_path / "train-00000-of-00001.tfrecord").touch()
    with pytest.raises(RemaskError) as caught:
        manifest.load(str(tmp_path))
    must_name(
        str(caught.value),
        f"{tmp_path}:",
        "no manifest.json",
        "not a finished data set",
        f"'make records CSV=... OUT={tmp_path}'",
    )


def test_load_names_the_file_that_is_damaged(tmp_path):
    (tmp_path / "manifest.json").write_text("oops")
    with pytest.raises(RemaskError) as caught:
        manifest.load(str(tmp_path))
    assert str(caught.value).startswith(f"{tmp_path}/manifest.json: line 1, column 1: found oops, expected JSON")
