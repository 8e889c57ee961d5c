"""The records job, run for real: what it makes, that it always makes the same, and what it says of bad input."""

import contextlib
import errno
import gzip
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipelines import documents, job, publish
from pipelines.__main__ import COMMANDS
from pipelines.documents import Shape
from pipelines.shards import shards
from pipelines.shards.blocks import BUCKETS
from pipelines.shards.shards import Layout, ShardKey
from pipelines.shards.split import document_ids, held_out
from pipelines.text import tokens
from pipelines.text.clean import clean
from records import storage
from records.config import VerifyOptions
from records.console import command_line
from records.errors import RemaskError
from records.format import manifest, tfrecord, verify
from records.format.frame import Frame
from records.format.manifest import SPLITS
from records.storage import disk, folder_lock
from tests import moments, processes
from tests.pipelines.made import REVIEWS, data_part, in_folder, shards_of, write_csv
from tests.said import must_name, one_line


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    tokens.train(map(clean, REVIEWS), vocab_size=200, name="test").save(str(folder))
    return str(folder)


@pytest.fixture
def run(tmp_path, tokenizer_folder, capsys):
    """Return a function that runs `make records` in this process: its status, and what it printed."""

    def run(*arguments, out="out", tokenizer=tokenizer_folder):
        argv = ["records", "--out", str(tmp_path / out), "--max_seq_length", "32", "--tokenizer", tokenizer, *arguments]
        capsys.readouterr()
        status = command_line.main("pipelines", "", COMMANDS, [str(argument) for argument in argv])
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return run


def decoded(folder):
    """Return the multiset of segments of a data set, as texts of word pieces, by split."""
    made = manifest.load(str(folder))
    vocabulary = {
        id_: token for token, id_ in json.loads((Path(folder) / "tokenizer.json").read_text())["model"]["vocab"].items()
    }
    found = {}
    for split in SPLITS:
        found[split] = []
        for shard in made.data.splits[split]:
            with open(storage.join(str(folder), shard.file), "rb") as file:
                for payload in tfrecord.read(file, name=shard.file):
                    ids = _input_ids(payload)
                    text = " ".join(vocabulary[id_] for id_ in ids if id_)
                    found[split] += [part.strip() for part in text.replace("[SEP]", "").split("[CLS]") if part]
    return found


def _input_ids(payload):
    import tensorflow as tf

    return tf.train.Example.FromString(payload).features.feature["input_ids"].int64_list.value


def test_the_summary_counts_everything(run, tmp_path):
    path = write_csv(tmp_path / "a.csv", [*REVIEWS, REVIEWS[0], REVIEWS[0] + "<br />", "", " \t", "<p>"])
    status, out, err = run("--csv", path)
    assert (status, err) == (0, "")
    data = data_part(tmp_path / "out")
    assert data["sources"] == [
        {
            "file": "a.csv",
            "rows": 305,
            "documents": 300,
            "dropped": {"malformed": 0, "empty": 3, "duplicate": 2},
            "recoded": 0,
            "tokens_dropped": 0,
        }
    ]
    assert "rows       305\n" in out
    assert "synthetic" not in out
    assert data["synthetic"] is False
    assert "documents  300; dropped: 2 duplicate, 3 empty\n" in out
    assert f"next       make show DATA={tmp_path}/out; make train DATA={tmp_path}/out\n" in out
    assert not (tmp_path / "out" / ".work").exists()
    assert len(data["splits"]["train"]) == 8


@pytest.mark.parametrize("long_text", ["pack", "window"])
def test_every_word_of_every_document_arrives_once_in_its_split(run, tmp_path, tokenizer_folder, long_text):
    path = write_csv(tmp_path / "a.csv", REVIEWS)
    assert run("--csv", path, "--long_text", long_text, "--validation_fraction", "0.2")[0] == 0
    artifact = tokens.tokenizers.Tokenizer.from_file(f"{tokenizer_folder}/tokenizer.json")
    expected = {split: [] for split in SPLITS}
    for text in map(clean, REVIEWS):
        pieces = artifact.encode(text, add_special_tokens=False).tokens
        split = "validation" if held_out(document_ids([text]), validation_fraction=0.2) else "train"
        expected[split] += [" ".join(pieces[start : start + 30]) for start in range(0, len(pieces), 30)]
    found = decoded(tmp_path / "out")
    assert all(sorted(found[split]) == sorted(expected[split]) for split in SPLITS)


def test_truncate_counts_the_tokens_it_drops(run, tmp_path, tokenizer_folder):
    path = write_csv(tmp_path / "a.csv", REVIEWS)
    assert run("--csv", path, "--long_text", "truncate")[0] == 0
    encoder = tokens.tokenizers.Tokenizer.from_file(f"{tokenizer_folder}/tokenizer.json")
    lengths = [len(encoder.encode(clean(text), add_special_tokens=False).ids) for text in REVIEWS]
    data = data_part(tmp_path / "out")
    assert data["sources"][0]["tokens_dropped"] == sum(max(0, length - 30) for length in lengths) > 0
    assert sum(shard["examples"] for shards in data["splits"].values() for shard in shards) == len(REVIEWS)


def test_the_same_bytes_in_any_order_of_rows_and_with_any_number_of_processes(run, tmp_path):
    """Duplicates stand in both files, so which of them stays must not depend on order either."""
    shuffled = random.Random(1)
    for folder in ("straight", "mixed"):
        (tmp_path / folder).mkdir()
        for name, texts in (("a.csv", REVIEWS[:200]), ("b.csv", REVIEWS[150:])):
            texts = list(texts)
            if folder == "mixed":
                shuffled.shuffle(texts)
            write_csv(tmp_path / folder / name, texts)
    jobs = {
        "one": ("straight", 1, "*.csv"),
        "two": ("straight", 2, "*.csv"),
        "rows": ("mixed", 1, "*.csv"),
        "both": ("mixed", 2, "[ba].csv"),
    }
    for out, (folder, number, pattern) in jobs.items():
        assert run("--csv", tmp_path / folder / pattern, "--processes", number, out=out)[0] == 0
    first, data = shards_of(tmp_path / "one"), data_part(tmp_path / "one")
    assert len(first) == 16
    assert [source["dropped"]["duplicate"] for source in data["sources"]] == [0, 50]
    for out in jobs:
        assert shards_of(tmp_path / out) == first
        assert data_part(tmp_path / out) == data


def test_the_same_bytes_and_counts_whether_documents_travel_or_lie_in_files(run, tmp_path, monkeypatch):
    """Between machines that share no disk the documents themselves are grouped by shard, not places in files."""
    write_csv(tmp_path / "a.csv", REVIEWS[:200])
    write_csv(tmp_path / "b.csv", [*REVIEWS[150:], "", "too long for a piece " * 40])
    with open(tmp_path / "b.csv", "a") as file:
        file.write("too,many,fields,here\n")
    packed = gzip.compress((tmp_path / "b.csv").read_bytes())
    (tmp_path / "c.csv.gz").write_bytes(packed)
    monkeypatch.setattr(job, "PIECE_BYTES", 2_000)
    assert run("--csv", tmp_path / "*.csv*")[0] == 0
    monkeypatch.setattr(job, "_blocks", lambda options: contextlib.nullcontext(""))
    assert run("--csv", tmp_path / "*.csv*", out="travelled")[0] == 0
    assert shards_of(tmp_path / "travelled") == shards_of(tmp_path / "out")
    assert data_part(tmp_path / "travelled") == data_part(tmp_path / "out")
    assert [source["file"] for source in data_part(tmp_path / "out")["sources"]] == ["a.csv", "b.csv", "c.csv.gz"]
    letters = [(tmp_path / out / "dead_letters.jsonl").read_text() for out in ("out", "travelled")]
    assert letters[0] == letters[1]
    assert letters[0].count("\n") == 2


@pytest.mark.cloud
def test_a_local_run_from_and_into_a_bucket_keeps_its_blocks_here(run, tmp_path, cloud):
    path = write_csv(tmp_path / "a.csv", [*REVIEWS, ""])
    assert run("--csv", path)[0] == 0
    cloud.storage.put("bucket", "in/a.csv", Path(path).read_bytes())
    assert run("--csv", "gs://bucket/in/*.csv", "--out", "gs://bucket/out")[0] == 0
    made = in_folder(cloud.storage.objects("bucket"), "out")
    here = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert {name for name in made if name != "manifest.json"} == {name for name in here if name != "manifest.json"}
    assert all(made[name] == content for name, content in here.items() if name != "manifest.json")
    assert json.loads(made["manifest.json"])["data"] == data_part(tmp_path / "out")
    assert not [entry for entry in cloud.log if ".block" in str(entry)]
    status, _, err = run("--csv", path, "--out", "gs://bucket/out")
    assert status == 1
    must_name(
        one_line(err),
        "error: gs://bucket/out:",
        "holds a data set already",
        "another folder with OUT=",
        "replace it with ARGS=--overwrite",
    )
    assert run("--csv", path, "--out", "gs://bucket/out", "--num_shards", "2", "--overwrite")[0] == 0
    assert len(cloud.storage.objects("bucket", "out/train-")) == 2


def test_as_many_shards_as_are_asked_for_are_those_of_the_train_split():
    shape = Shape("", "", 1, "text", "utf-8", 0.05, 3, Layout(32, "pack", 2, 3, 40, False), "job")
    plan = job._plan(np.full((len(SPLITS), BUCKETS), 32), shape)
    assert {split: int(plan[split][-1]) + 1 for split in SPLITS} == {"train": 3, "validation": 8}


def test_records_in_a_shard_are_sorted_by_example_id_and_gzip_holds_the_same(run, tmp_path):
    path = write_csv(tmp_path / "a.csv", REVIEWS)
    assert run("--csv", path, "--num_shards", "3")[0] == 0
    assert run("--csv", path, "--num_shards", "3", "--compression", "gzip", out="zipped")[0] == 0
    plain, zipped = shards_of(tmp_path / "out"), shards_of(tmp_path / "zipped")
    assert sum(name.startswith("train") for name in plain) == 3
    assert {name: gzip.decompress(content) for name, content in zipped.items()} == plain
    for name, content in plain.items():
        ids = [_example_id(payload) for payload in tfrecord.read(io.BytesIO(content), name=name)]
        assert ids == sorted(set(ids))


def _example_id(payload):
    import tensorflow as tf

    return tf.train.Example.FromString(payload).features.feature["example_id"].int64_list.value[0]


@pytest.mark.parametrize("long_text", ["pack", "window", "truncate"])
def test_shards_are_planned_by_the_bytes_that_they_will_hold_and_are_as_the_manifest_says(
    run, tmp_path, monkeypatch, long_text
):
    monkeypatch.setattr(shards, "SHARD_BYTES", 1000)
    path = write_csv(tmp_path / "a.csv", REVIEWS)
    assert run("--csv", path, "--long_text", long_text, "--validation_fraction", "0.2")[0] == 0
    assert verify.main(VerifyOptions(f"{tmp_path}/out")) == 0  # the counts of the manifest are those of the shards
    data = data_part(tmp_path / "out")
    frame = Frame(32, data["tokenizer"]["vocab_size"]).size
    windows = 1 if long_text == "truncate" else 4  # of the longest review
    padding = 2 if long_text == "pack" else 1  # at most; it is all that is not known before
    for made in data["splits"].values():
        total, largest = (of(shard["bytes"] for shard in made) for of in (sum, max))
        assert largest <= (1000 + windows * frame) * padding
        assert total / padding / 1000 <= len(made) <= max(8, total / 1000 + 1)


@pytest.mark.parametrize("fraction", ["0", "0.000001", "0.999999"])
def test_a_split_that_is_empty_is_said_with_what_that_means(run, tmp_path, fraction):
    path = write_csv(tmp_path / "a.csv", REVIEWS[:3])
    status, out, err = run("--csv", path, "--validation_fraction", fraction)
    assert (status, err) == (0, "")
    split = "train" if fraction == "0.999999" else "validation"
    (line,) = (line for line in out.splitlines() if line.startswith(split))
    warned, means = {
        "0": (False, "as validation_fraction 0 asks; training will have no held-out figures"),
        "0.000001": (True, "by chance; training will have no held-out figures"),
        "0.999999": (True, "all of 3; make the records again with a smaller --validation_fraction"),
    }[fraction]
    assert means in line
    assert ("WARNING" in line) == warned
    assert ("--validation_fraction" in line) == warned


def test_a_few_documents_make_few_shards_and_none_is_empty(run, tmp_path):
    path = write_csv(tmp_path / "a.csv", REVIEWS[:3])
    assert run("--csv", path, "--validation_fraction", "0")[0] == 0
    data = data_part(tmp_path / "out")
    assert data["splits"]["validation"] == []
    assert all(shard["examples"] for shard in data["splits"]["train"])


def test_a_data_set_is_not_overwritten_unless_asked(run, tmp_path):
    path = write_csv(tmp_path / "a.csv", REVIEWS[:50])
    assert run("--csv", path)[0] == 0
    before = shards_of(tmp_path / "out")
    status, _, err = run("--csv", write_csv(tmp_path / "b.csv", REVIEWS[50:]))
    assert status == 1
    must_name(
        one_line(err),
        f"error: {tmp_path}/out:",
        "holds a data set already",
        "another folder with OUT=",
        "replace it with ARGS=--overwrite",
    )
    assert shards_of(tmp_path / "out") == before
    assert run("--csv", path, "--num_shards", "2", "--overwrite")[0] == 0
    assert len([name for name in shards_of(tmp_path / "out") if name.startswith("train")]) == 2


def test_a_job_that_cannot_start_costs_no_data_set(run, tmp_path):
    path = write_csv(tmp_path / "a.csv", REVIEWS[:50])
    assert run("--csv", path)[0] == 0
    before = shards_of(tmp_path / "out")
    assert run("--csv", tmp_path / "typo.csv", "--overwrite")[0] == 1
    assert run("--csv", path, "--column", "typo", "--overwrite")[0] == 1
    assert run("--csv", path, "--overwrite", tokenizer=str(tmp_path / "typo"))[0] == 1
    assert shards_of(tmp_path / "out") == before
    assert manifest.load(str(tmp_path / "out"))


def test_a_job_that_was_taken_over_meanwhile_leaves_the_others_data_set_alone(
    run, tmp_path, tokenizer_folder, monkeypatch
):
    out, load = tmp_path / "out", job._tokenizer

    def slowly(options, sources):
        artifact = load(options, sources)
        monkeypatch.setattr(job, "_tokenizer", load)
        arguments = ["--tokenizer", tokenizer_folder, "--max_seq_length", "32", "--overwrite"]
        other = ["--csv", str(write_csv(tmp_path / "b.csv", REVIEWS[:30])), "--out", str(out)]
        processes.run([sys.executable, "-m", "pipelines", "records", *other, *arguments], check=True)
        return artifact

    monkeypatch.setattr(job, "_tokenizer", slowly)
    status, _, err = run("--csv", write_csv(tmp_path / "a.csv", REVIEWS[:20]))
    assert status == 1
    must_name(
        one_line(err),
        f"error: {out}:",
        "another job has taken it over",
        "no data set",
        "run it again with another OUT=",
    )
    made = manifest.Manifest.from_json((out / "manifest.json").read_bytes())
    assert made.data.sources[0].file == "b.csv"


def test_a_worker_of_a_job_that_was_taken_over_writes_no_shard(tmp_path):
    folder = str(tmp_path)
    ours = folder_lock.take(folder, what="job", instead="").id
    other = folder_lock.take(folder, what="job", instead="", take_over=True)
    shape = Shape(folder, "", 1 << 20, "text", "utf-8", 0.05, 1, Layout(8, "pack", 2, 3, 40, False), ours)
    with pytest.raises(RemaskError, match="another job has taken it over"):
        list(job.WriteShard(shape).process((ShardKey("train", 0, 1).packed(), [])))
    assert not list(tmp_path.glob("*.tfrecord*"))
    other.release()


def test_a_data_set_is_replaced_with_its_own_tokenizer(run, tmp_path):
    path = write_csv(tmp_path / "a.csv", REVIEWS[:50])
    assert run("--csv", path)[0] == 0
    before = shards_of(tmp_path / "out")
    assert run("--csv", path, "--overwrite", tokenizer=str(tmp_path / "out"))[0] == 0
    assert shards_of(tmp_path / "out") == before


def test_old_shards_go_whatever_the_folder_is_called(run, tmp_path):
    path = write_csv(tmp_path / "a.csv", REVIEWS[:50])
    assert run("--csv", path, out="new [1]*")[0] == 0
    assert run("--csv", path, "--num_shards", "2", "--validation_fraction", "0", "--overwrite", out="new [1]*")[0] == 0
    assert list(shards_of(tmp_path / "new [1]*")) == ["train-00000-of-00002.tfrecord", "train-00001-of-00002.tfrecord"]


def test_a_gz_file_is_worked_off_in_parts_that_change_nothing(run, tmp_path, monkeypatch):
    path = write_csv(tmp_path / "a.csv", REVIEWS)
    content = (Path(path).read_bytes() + b"too,many,fields,here\n") * 2
    Path(path).write_bytes(content)
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(content))
    assert run("--csv", path)[0] == 0
    for name, limit in (("_BATCH", 7), ("_BATCH_SIZE", 300), ("_PART", 20), ("_PART_SIZE", 900)):
        monkeypatch.setattr(documents, name, limit)
    assert run("--csv", f"{path}.gz", out="parts")[0] == 0
    assert shards_of(tmp_path / "parts") == shards_of(tmp_path / "out")
    one, parts = (data_part(tmp_path / out)["sources"][0] for out in ("out", "parts"))
    assert {**parts, "file": "a.csv"} == one
    assert one["dropped"]["malformed"] == 2
    rows = [
        [json.loads(line)["row"] for line in (tmp_path / out / "dead_letters.jsonl").read_text().splitlines()]
        for out in ("out", "parts")
    ]
    assert rows == [[301, 603]] * 2


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="there is no /proc, where not even root can make a folder")
def test_a_folder_that_cannot_be_made_is_named(run):
    status, _, err = run(out="/proc/remask", tokenizer="train:300")
    assert (status, err) == (1, "error: /proc/remask: no such file or directory\n")


def test_an_interrupt_is_no_fault(run, tmp_path, monkeypatch):
    """Ctrl-C reaches the worker, which in one process is in the main thread."""

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(tokens, "encoder", lambda _: interrupted)
    path = write_csv(tmp_path / "a.csv", REVIEWS[:5])
    assert run("--csv", path) == (130, "", "interrupted\n")
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_a_killed_job_leaves_no_data_set_and_the_next_one_cleans_up(run, tmp_path, tokenizer_folder):
    path = write_csv(tmp_path / "a.csv", [f"{text} {copy}" for copy in range(100) for text in REVIEWS])
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    command = [sys.executable, "-m", "pipelines", "records", "--csv", path, "--out", str(out)]
    command += ["--tokenizer", tokenizer_folder, "--max_seq_length", "32"]
    with processes.started(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as child:
        processes.wait_for(lambda: list(out.glob(".work/*")), child)
    assert list(out.glob(".work/*"))
    assert not (out / "manifest.json").exists()
    (out / "train-00000-of-00099.tfrecord").write_bytes(b"left over")
    for name in ("train-00001-of-00099.tfrecord", "dead_letters.jsonl", "tokenizer.json", "manifest.json", ".lock"):
        (out / f"{name}.0123abcd.partial").write_bytes(b"left over")
    (out / "notes.partial").write_text("mine, too")
    assert run("--csv", write_csv(tmp_path / "b.csv", REVIEWS))[0] == 0
    made = set(shards_of(out)) | {"manifest.json", "tokenizer.json", "tokenizer_config.json"}
    assert {path.name for path in out.iterdir()} == made | {"notes.txt", "notes.partial"}
    assert not [name for name in made if "00099" in name]


KILLED = """
import os, sys
from pipelines import __main__, publish
from records import storage
from records.console import command_line
{patch}
sys.exit(command_line.main("pipelines", "", __main__.COMMANDS, sys.argv[1:]))
"""
AFTER_THE_MANIFEST = {
    "before-anything-is-tidied": "publish._clean = lambda *a: os.kill(os.getpid(), 9)",
    "in-the-middle": """
import shutil
rmtree = shutil.rmtree
def half(path):
    for folder in path.iterdir():
        if len(folder.name) == 32:  # that of the job
            rmtree(folder)
    os.kill(os.getpid(), 9)
shutil.rmtree = half
""",
    "before-the-lock-is-given-back": """
from records.storage.folder_lock import Lock
Lock.release = lambda self: os.kill(os.getpid(), 9)
""",
}


@pytest.fixture
def killed(tmp_path, tokenizer_folder):
    """Return a function that runs `make records` in a process to which a signal comes at some point."""

    def killed(patch, *arguments, number=signal.SIGKILL):
        argv = ["records", "--out", str(tmp_path / "out"), "--max_seq_length", "32", "--tokenizer", tokenizer_folder]
        patch = patch.replace("os.getpid(), 9", f"os.getpid(), {number:d}")
        command = [sys.executable, "-c", KILLED.format(patch=patch), *argv, *map(str, arguments)]
        done = processes.run(command, capture_output=True, text=True)
        status = -number if number == signal.SIGKILL else 128 + number
        assert done.returncode == status, done.stderr
        return done.stdout, done.stderr

    return killed


BEFORE_THE_MANIFEST = {
    "while-rows-become-documents": """
from pipelines.shards import blocks
def kill(path, content):
    with storage.open_write(path) as file:
        file.write(content[:10])
        file.flush()
        os.kill(os.getpid(), 9)
blocks.storage = type("Killing", (), {"write_bytes": staticmethod(kill), "join": storage.join})
""",
    "in-the-middle-of-a-shard": """
from pipelines.shards import shards
def kill(file, *others, **options):
    file.write(bytes(100_000))
    file.flush()
    os.kill(os.getpid(), 9)
shards.tfrecord.write = kill
""",
    "before-the-manifest": "publish._check_shards = lambda *a: os.kill(os.getpid(), 9)",
}


@pytest.mark.parametrize(
    ("number", "moment", "said"),
    [
        (signal.SIGTERM, "while-rows-become-documents", "terminated"),
        (signal.SIGTERM, "in-the-middle-of-a-shard", "terminated"),
        (signal.SIGINT, "in-the-middle-of-a-shard", "interrupted"),
    ],
)
def test_a_job_that_is_told_to_stop_gives_its_folder_back_and_says_no_more(tmp_path, killed, number, moment, said):
    """Beam makes an error of its own of whatever is raised while it runs a step."""
    path = write_csv(tmp_path / "a.csv", REVIEWS[:50])
    assert killed(BEFORE_THE_MANIFEST[moment], "--csv", path, number=number)[1].splitlines()[-1:] == [said]
    assert not (tmp_path / "out").exists()


MOMENTS = [
    ("folder_lock.py:_has_locks", "return"),
    ("folder_lock.py:_Kernel._attempt", "return"),
    ("folder_lock.py:_Kernel.write", "return"),
    ("folder_lock.py:take", "return"),
    ("job.py:_finished", "call"),
    ("job.py:_make_room", "call"),
    ("job.py:_make_room", "return"),
    ("artifact.py:TokenizerArtifact.save", "return"),
    ("source.py:write_list", "call"),
    ("disk.py:_make_folder", "return"),
    ("source.py:write_list", "return"),
    ("blocks.py:make_block", "return"),
    ("shards.py:write_shard", "call"),
    ("shards.py:write_shard", "return"),
    ("publish.py:_check_shards", "return"),
]


@pytest.mark.parametrize(("function", "event"), MOMENTS)
def test_a_signal_at_any_moment_leaves_nothing(run, tmp_path, function, event):
    path = write_csv(tmp_path / "a.csv", REVIEWS[:20])
    with moments.signalled(signal.SIGTERM, function, event) as sent:
        assert run("--csv", path, out="deep/out")[0] == 143
    assert sent
    assert [each.name for each in tmp_path.iterdir()] == ["a.csv"]


def test_a_folder_that_was_there_before_stays(run, tmp_path):
    path, out = write_csv(tmp_path / "a.csv", REVIEWS[:20]), tmp_path / "out"
    out.mkdir()
    with moments.signalled(signal.SIGINT, "shards.py:write_shard", "return") as sent:
        assert run("--csv", path)[0] == 130
    assert sent
    assert not list(out.iterdir())


@pytest.mark.parametrize(
    ("function", "event"),
    [
        ("publish.py:_clean", "call"),
        ("publish.py:_clean", "return"),
        ("folder_lock.py:Lock.release", "call"),
        ("folder_lock.py:_Kernel.release", "return"),
    ],
)
def test_a_signal_behind_the_manifest_leaves_the_data_set_and_nothing_else(run, tmp_path, function, event):
    path, out = write_csv(tmp_path / "a.csv", REVIEWS[:20]), tmp_path / "out"
    with moments.signalled(signal.SIGTERM, function, event) as sent:
        assert run("--csv", path)[0] == 143
    assert sent
    left = {each.name for each in out.iterdir()} - set(shards_of(out))
    assert left == {"manifest.json", "tokenizer.json", "tokenizer_config.json"}
    assert verify.main(VerifyOptions(data=str(out))) == 0


def test_a_signal_does_not_disturb_what_a_failure_has_begun_and_both_are_told(run, tmp_path):
    path = write_csv(tmp_path / "a.csv", REVIEWS[:20])
    with moments.signalled(signal.SIGTERM, "job.py:_Undo.__exit__", "call") as sent:
        status, _, err = run("--csv", path, tokenizer=str(tmp_path / "none"))
    assert sent
    assert status == 143
    must_name(
        err, "SIGTERM: waiting for the lock of", f"{tmp_path}/out", "error: tokenizer", f"{tmp_path}/none", "terminated"
    )
    assert [each.name for each in tmp_path.iterdir()] == ["a.csv"]


def test_what_the_same_command_needs_stays(run, tmp_path, tokenizer_folder):
    """A tokenizer in the folder itself; and the data set that was to be replaced, until room is made for another."""
    path, out = write_csv(tmp_path / "a.csv", REVIEWS[:20]), tmp_path / "out"
    assert run("--csv", path)[0] == 0
    before = {each.name: each.read_bytes() for each in out.iterdir()}
    with moments.signalled(signal.SIGTERM, "job.py:_make_room", "call") as sent:
        assert run("--csv", path, "--overwrite", tokenizer=str(out))[0] == 143
    assert sent
    assert {each.name: each.read_bytes() for each in out.iterdir()} == before
    with moments.signalled(signal.SIGTERM, "shards.py:write_shard", "return") as sent:
        assert run("--csv", path, "--overwrite", tokenizer=str(out))[0] == 143
    assert sent
    assert {each.name for each in out.iterdir()} == {"tokenizer.json", "tokenizer_config.json"}
    assert run("--csv", path, tokenizer=str(out))[0] == 0


@pytest.mark.parametrize("moment", ["signal", "full disk"])
def test_a_tokenizer_that_is_read_from_the_folder_itself_is_there_at_any_moment(
    run, tmp_path, tokenizer_folder, monkeypatch, moment
):
    """It may be the only copy."""
    path, out = write_csv(tmp_path / "a.csv", REVIEWS[:20]), tmp_path / "out"
    shutil.copytree(tokenizer_folder, out)
    before = {each.name: each.read_bytes() for each in out.iterdir()}
    if moment == "signal":
        with moments.signalled(signal.SIGINT, "job.py:_make_room", "return") as sent:
            assert run("--csv", path, tokenizer=str(out))[0] == 130
        assert sent
    else:
        with monkeypatch.context() as patched:
            patched.setattr(disk, "open_write", filling(disk.open_write, out / "tokenizer.json"))
            status, _, err = run("--csv", path, tokenizer=str(out))
        assert status == 1
        must_name(err, f"{out}/tokenizer.json:", "no space left on device")
    assert {each.name: each.read_bytes() for each in out.iterdir()} == before
    assert run("--csv", path, tokenizer=str(out))[0] == 0


def filling(open_write, at):
    """Return the function for a disk that has no room left once a file is to be written."""

    def fills(path, **options):
        if path == str(at):
            raise disk.explained(path, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
        return open_write(path, **options)

    return fills


@pytest.mark.parametrize("name", ["tokenizer.json", "train-00000-of-00001.tfrecord"])
def test_files_of_another_tool_that_are_called_as_ours_are_not_replaced_unless_asked(run, tmp_path, name):
    path, out = write_csv(tmp_path / "a.csv", REVIEWS[:20]), tmp_path / "out"
    out.mkdir()
    (out / name).write_text("mine")
    with folder_lock.held(str(out), what="export", instead=""):
        shutil.copy(out / ".lock", tmp_path / "lock")
    for _ in range(2):
        for arguments in ([], ["--dry_run"]):
            status, _, err = run("--csv", path, *arguments)
            assert status == 1
            must_name(
                one_line(err),
                f"error: {out}:",
                f"holds {name}",
                "no manifest.json",
                "another folder with OUT=",
                "ARGS=--overwrite",
            )
            assert (out / name).read_text() == "mine"
        shutil.copy(tmp_path / "lock", out / ".lock")  # of a killed command that makes no records
    assert run("--csv", path, "--overwrite")[0] == 0


def test_what_a_killed_job_has_left_is_ours_whatever_fails_in_between(run, tmp_path, killed):
    path, out = write_csv(tmp_path / "a.csv", REVIEWS[:50]), tmp_path / "out"
    killed(BEFORE_THE_MANIFEST["before-the-manifest"], "--csv", path)
    assert shards_of(out)
    assert run("--csv", tmp_path / "typo.csv")[0] == 1
    assert run("--csv", path)[0] == 0


def test_a_refusal_leaves_nothing_but_the_letters_that_it_names(run, tmp_path):
    path, out = write_csv(tmp_path / "a.csv", []), tmp_path / "deep" / "out"
    with open(path, "a") as file:
        file.write("1,too,many,fields\n")
    status, _, err = run("--csv", path, out="deep/out")
    assert status == 1
    assert f"{out}/dead_letters.jsonl" in err
    assert [each.name for each in out.iterdir()] == ["dead_letters.jsonl"]
    assert run("--csv", path, out="other", tokenizer=str(tmp_path / "none"))[0] == 1
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("taken", [False, True])
def test_a_job_that_fails_removes_what_it_made_unless_the_folder_is_anothers(run, tmp_path, monkeypatch, taken):
    path, out, others, seen = write_csv(tmp_path / "a.csv", REVIEWS[:50]), tmp_path / "out", [], []

    def fails(folder, data):
        seen.extend(out.glob(".work/blocks/*"))
        if taken:
            others.append(folder_lock.take(folder, what="job", instead="", take_over=True))
        raise RemaskError("it fails")

    monkeypatch.setattr(publish, "_check_shards", fails)
    status, _, err = run("--csv", path)
    assert (status, err.splitlines()[-1]) == (1, "error: it fails")
    assert seen
    assert (out / ".work" / "blocks").exists() == taken
    assert out.exists() == taken
    for other in others:
        other.release()


@pytest.mark.parametrize("content", ["{", '{"format_version": 1}'])
def test_a_manifest_that_cannot_be_read_is_replaced_where_that_is_said(run, tmp_path, content):
    path, out = write_csv(tmp_path / "a.csv", REVIEWS[:50]), tmp_path / "out"
    (out / ".work").mkdir(parents=True)
    (out / "manifest.json").write_text(content)
    status, _, err = run("--csv", path)
    assert status == 1
    must_name(one_line(err), f"error: {out}/manifest.json:", "to replace what is there", "ARGS=--overwrite")
    assert run("--csv", path, "--overwrite")[0] == 0


@pytest.mark.parametrize("moment", BEFORE_THE_MANIFEST)
def test_after_a_kill_the_same_command_makes_the_same_bytes_and_leaves_nothing_else(run, tmp_path, killed, moment):
    path, out = write_csv(tmp_path / "a.csv", [*REVIEWS[:50], ""]), tmp_path / "out"
    with open(path, "a") as file:
        file.write("1,too,many,fields\n")
    assert run("--csv", path, out="undisturbed")[0] == 0
    killed(BEFORE_THE_MANIFEST[moment], "--csv", path)
    assert {".lock", ".work"} <= {each.name for each in out.iterdir()}
    assert list(out.rglob("*.partial")) or moment == "before-the-manifest"
    assert run("--csv", path)[0] == 0
    made, expected = (
        {str(each.relative_to(folder)): each.read_bytes() for each in folder.rglob("*") if each.is_file()}
        for folder in (out, tmp_path / "undisturbed")
    )
    assert data_part(out) == data_part(tmp_path / "undisturbed")
    made["manifest.json"] = expected["manifest.json"]  # of another job
    assert made == expected


@pytest.mark.parametrize("moment", AFTER_THE_MANIFEST)
def test_after_a_kill_behind_the_manifest_the_same_command_says_that_the_set_is_whole(run, tmp_path, killed, moment):
    path, out = write_csv(tmp_path / "a.csv", REVIEWS[:50]), tmp_path / "out"
    killed(AFTER_THE_MANIFEST[moment], "--csv", path)
    before, made = shards_of(out), manifest.load(str(out))
    assert (out / ".lock").exists()
    status, said, err = run("--csv", path)
    assert (status, err) == (0, "")
    assert said.startswith(f"{out}: this data set is whole, of the input as it was at {made.job['created']}; ")
    assert "ARGS=--overwrite makes it again\nnext       make show DATA=" in said
    assert {path.name for path in out.iterdir()} == {
        *before,
        "manifest.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert shards_of(out) == before
    status, _, err = run("--csv", path)  # nobody was killed: as ever
    assert status == 1
    assert "it holds a data set already" in err


def test_after_a_kill_behind_the_manifest_another_command_is_refused_and_tidies_up(run, tmp_path, killed):
    path, out = write_csv(tmp_path / "a.csv", REVIEWS[:50]), tmp_path / "out"
    killed(AFTER_THE_MANIFEST["before-anything-is-tidied"], "--csv", path)
    status, _, err = run("--csv", path, "--num_shards", "3")
    assert status == 1
    assert "it holds a data set already" in err
    assert not {".work", ".lock"} & {path.name for path in out.iterdir()}


def test_a_job_that_was_killed_before_it_replaced_a_data_set_has_not_made_it(run, tmp_path, killed):
    """The folder's data set is that of the same command, but of the input as it was before."""
    path, out = write_csv(tmp_path / "a.csv", REVIEWS[:50]), tmp_path / "out"
    assert run("--csv", path)[0] == 0
    write_csv(tmp_path / "a.csv", REVIEWS[50:])
    killed(
        "from pipelines import job; job._make_room = lambda options: os.kill(os.getpid(), 9)",
        "--csv",
        path,
        "--overwrite",
    )
    status, _, err = run("--csv", path)
    assert status == 1
    assert "it holds a data set already" in err
    assert not {".work", ".lock"} & {path.name for path in out.iterdir()}
    assert run("--csv", path, "--overwrite")[0] == 0


def test_a_folder_in_use_is_refused_whether_it_holds_a_data_set_or_not(run, tmp_path):
    path, out = write_csv(tmp_path / "a.csv", REVIEWS[:50]), tmp_path / "out"
    for _ in range(2):
        with folder_lock.held(str(out), what="job", instead=""):
            status, _, err = run("--csv", path)
            assert status == 1
            assert "another job writes there" in err
            assert "ARGS=--overwrite" in err
        assert run("--csv", path, "--overwrite")[0] == 0


def test_the_manifest_goes_first_and_is_missed_from_then_on(run, tmp_path, monkeypatch):
    path, out = write_csv(tmp_path / "a.csv", REVIEWS[:50]), tmp_path / "out"
    assert run("--csv", path)[0] == 0
    before = shards_of(out)

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(storage, "remove_files", interrupted)
        assert run("--csv", path, "--overwrite")[0] == 130
    assert not (out / "manifest.json").exists()
    assert shards_of(out) == before
    assert run("--csv", path)[0] == 0


def test_malformed_rows_go_to_the_dead_letters_and_the_rest_goes_on(run, tmp_path):
    content = 'id,text\n1,"a fine film"\n2,too,many\n3\n4,"a\ndull\nfilm"\n'
    content += '5,"open\n6,"good" film\n7,bad \xe9 film\n8,a\x00b\n'
    (tmp_path / "a.csv").write_bytes(content.encode("latin-1"))
    status, out, err = run("--csv", tmp_path / "a.csv", "--validation_fraction", "0")
    assert (status, err) == (0, "")
    source = data_part(tmp_path / "out")["sources"][0]
    letters = [json.loads(line) for line in (tmp_path / "out" / "dead_letters.jsonl").read_text().splitlines()]
    assert [(letter["row"], letter["line"]) for letter in letters] == [(2, 3), (3, 4), (5, 8), (6, 9)]
    assert all(letter["file"] == str(tmp_path / "a.csv") and letter["reason"] for letter in letters)
    assert letters[0]["raw"] == "2,too,many\n"
    assert (source["rows"], source["documents"], source["recoded"]) == (8, 4, 1)
    assert source["dropped"] == {"malformed": 4, "empty": 0, "duplicate": 0}
    assert f"look at    {tmp_path}/out/dead_letters.jsonl: the malformed rows, with the reason of each\n" in out
    found = decoded(tmp_path / "out")["train"]
    assert len(found) == 4
    assert "a dull film" in found


def test_a_field_of_five_megabytes_is_a_document_like_others(run, tmp_path):
    path = write_csv(tmp_path / "a.csv", ["a fine film " * 420_000, *REVIEWS[:20]])
    assert run("--csv", path, "--validation_fraction", "0")[0] == 0
    data = data_part(tmp_path / "out")
    assert data["sources"][0]["documents"] == 21
    assert sum(shard["segments"] for shard in data["splits"]["train"]) > 1_260_000 / 30


@pytest.mark.parametrize(
    ("processes", "content", "parts"),
    [
        (1, "id,text\n", ("a.csv:", "a header and no rows", "expected at least one text")),
        (
            2,
            "id,text\n1\n2,\n3,a,b\n",
            ("a.csv:", "none of the 3 rows", "1 empty", "2 malformed", "OUT/dead_letters.jsonl"),
        ),
    ],
)
def test_input_of_which_nothing_is_left_is_an_error(run, tmp_path, content, parts, processes):
    (tmp_path / "a.csv").write_text(content)
    status, _, err = run("--csv", tmp_path / "a.csv", "--processes", processes)
    assert status == 1
    must_name(one_line(err), "error:", *(part.replace("OUT", str(tmp_path / "out")) for part in parts))
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_what_can_never_work_fails_before_anything_is_done(run, tmp_path, tokenizer_folder):
    path = write_csv(tmp_path / "a.csv", REVIEWS[:5])
    (tmp_path / "empty.csv").write_text("")
    status, _, err = run("--csv", tmp_path / "none.csv")
    assert (status, err) == (1, f"error: no such file: {tmp_path}/none.csv\n")
    status, _, err = run("--csv", path, "--column", "txt")
    assert status == 1
    assert err.startswith(f"error: {path}: ")
    assert all(name in err for name in ("txt", "row_Number", "text", "polarity"))
    status, _, err = run("--csv", tmp_path / "empty.csv")
    assert status == 1
    assert err.startswith(f"error: {tmp_path}/empty.csv: ")
    status, _, err = run("--csv", path, tokenizer=str(tmp_path / "no-such-tokenizer"))
    assert status == 1
    must_name(
        one_line(err),
        f"error: tokenizer {tmp_path}/no-such-tokenizer:",
        "neither a folder nor a name that the HuggingFace hub",
        "a folder with a tokenizer.json",
        "a hub name such as bert-base-uncased",
        "train:8000",
    )
    config = json.loads(Path(tokenizer_folder, "tokenizer_config.json").read_text())
    other = tmp_path / "other"
    other.mkdir()
    (other / "tokenizer.json").write_bytes(Path(tokenizer_folder, "tokenizer.json").read_bytes())
    (other / "tokenizer_config.json").write_text(json.dumps({**config, "model_max_length": 16}))
    status, _, err = run("--csv", path, tokenizer=str(other))
    assert status == 1
    must_name(one_line(err), "error: max_seq_length:", "found 32", "expected at most 16", f"tokenizer {other}")
    assert not (tmp_path / "out" / "manifest.json").exists()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full, a device that is always full")
def test_a_full_disk_is_named(run, tmp_path, monkeypatch):
    """The first shard's place is a real full device, found in the middle of the job by one of its workers."""
    path = write_csv(tmp_path / "a.csv", REVIEWS)
    out = tmp_path / "out"
    out.mkdir()
    assert run("--csv", path)[0] == 0
    name = min(shards_of(out))
    remove = storage.remove_files

    def remove_and_fill(targets):
        remove(targets)
        if not (out / f"{name}.{disk.PROCESS}.partial").is_symlink():
            (out / f"{name}.{disk.PROCESS}.partial").symlink_to("/dev/full")

    monkeypatch.setattr(storage, "remove_files", remove_and_fill)
    status, _, err = run("--csv", path, "--overwrite")
    assert status == 1
    must_name(one_line(err), f"error: {out}/{name}:", "no space left on device", "free some space", "another disk")
    assert not (out / "manifest.json").exists()


def test_the_embedded_reviews_are_named_as_synthetic(run, tmp_path):
    status, out, _ = run("--num_shards", "2", tokenizer="train:300")
    assert status == 0
    assert "input: synthetic film reviews (made by remask, not real)" in out
    assert f"made       {tmp_path}/out of synthetic film reviews (made by remask, not real)\n" in out
    assert manifest.load(str(tmp_path / "out")).data.synthetic
    assert manifest.load(str(tmp_path / "out")).data.tokenizer.name == "train:300"


def test_padding_stays_below_two_percent(run, tmp_path):
    path = write_csv(tmp_path / "a.csv", REVIEWS * 2 + [f"{text} Again!" for text in REVIEWS])
    assert run("--csv", path, "--num_shards", "1", "--validation_fraction", "0")[0] == 0
    shards = data_part(tmp_path / "out")["splits"]["train"]
    used = np.array([shard["tokens"] for shard in shards]).sum()
    assert 1 - used / (32 * sum(shard["examples"] for shard in shards)) < 0.02
