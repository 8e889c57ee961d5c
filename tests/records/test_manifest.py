import dataclasses
import json

import pytest

from records import manifest
from records.errors import RemaskError
from records.manifest import Data, Manifest, Shard, Source, Tokenizer
from tests.records.made import toy_tokenizer

MADE = Manifest(
    Data(
        max_seq_length=128,
        long_text="window",
        validation_fraction=0.05,
        compression="gzip",
        tokenizer=Tokenizer.of(toy_tokenizer()),
        splits={
            "train": (
                Shard("train-0", 5, 7, 300, 999, "0000000a", "0b"),
                Shard("train-1", 6, 8, 400, 1200, "ffffffff", "ff"),
            ),
            "validation": (Shard("validation-0", 2, 2, 60, 444, "12345678", "78"),),
        },
        sources=(Source("Kritik ü.csv", 20, 13, {"duplicate": 4, "malformed": 3}, 1, 0),),
    ),
    {"package_version": "0.1.0", "seconds": 1.5},
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
    )


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
    assert Manifest(data, {}).digest() == "6e878e9da98a271879b3c23008617ba2906d86e1a50aaf750d9c8f10045a5d5d"


@pytest.mark.parametrize(
    "change",
    [
        {"max_seq_length": 127},
        {"splits": {**MADE.data.splits, "train": MADE.data.splits["train"][:1]}},
        {"tokenizer": dataclasses.replace(MADE.data.tokenizer, sha256="0" * 64)},
        {
            "splits": {
                **MADE.data.splits,
                "validation": (Shard("validation-0", 2, 2, 60, 444, "12345679", "78"),),
            }
        },
    ],
)
def test_digest_sees_each_change_of_the_data(change):
    assert dataclasses.replace(MADE, data=dataclasses.replace(MADE.data, **change)).digest() != MADE.digest()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", "null", '{"data": 1}', b"\xff\xfe\x00", '{"format_version": 1, "job": 3}']
)
def test_what_is_no_manifest_is_refused(text):
    assert refusal(text) == "out/manifest.json: not a manifest of remask; make the records again with 'make records'"


@pytest.mark.parametrize("version", [0, 1, 3, "2"])
def test_another_version_is_refused(version):
    assert refusal(changed(format_version=version)) == (
        f"out/manifest.json: format version {version}, this remask reads version 2; make the records again with 'make "
        f"records', or use the remask that wrote them (0.1.0)"
    )


def test_another_version_may_look_quite_different():
    assert "or use the remask that wrote them (unknown)" in refusal('{"format_version": 7}')


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (changed(data={}), "'tokenizer'"),
        (changed(data=[]), "list indices must be integers or slices, not str"),
        (changed(data={**json.loads(MADE.to_json())["data"], "splits": {"train": []}}), "'validation'"),
        (changed(data={**json.loads(MADE.to_json())["data"], "splits": {"train": [], "validation": [{}]}}), None),
        (changed(data={**json.loads(MADE.to_json())["data"], "more": 1}), None),
        (json.dumps({"format_version": 2, "data": json.loads(MADE.to_json())["data"]}), "'job'"),
    ],
)
def test_damage_is_refused(text, reason):
    said = refusal(text)
    assert said.startswith("out/manifest.json: damaged (")
    assert said.endswith("); make the records again with 'make records'")
    assert reason is None or f"({reason})" in said


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(RemaskError) as caught:
        manifest.load(f"{tmp_path}/none")
    assert str(caught.value) == (
        f"{tmp_path}/none: no such folder; make the records first, with 'make records CSV=... OUT={tmp_path}/none'"
    )


def test_a_folder_without_a_manifest(tmp_path):
    (tmp_path / "train-00000-of-00001.tfrecord").touch()
    with pytest.raises(RemaskError) as caught:
        manifest.load(str(tmp_path))
    assert str(caught.value) == (
        f"{tmp_path}: no manifest.json, so this is not a finished data set. A job that was interrupted leaves none: "
        f"run 'make records CSV=... OUT={tmp_path}' again"
    )


def test_load_names_the_file_that_is_damaged(tmp_path):
    (tmp_path / "manifest.json").write_text("oops")
    with pytest.raises(RemaskError) as caught:
        manifest.load(str(tmp_path))
    assert str(caught.value) == (
        f"{tmp_path}/manifest.json: not a manifest of remask; make the records again with 'make records'"
    )
