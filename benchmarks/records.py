"""Text into records: the tokens alone beside a bare loop over HuggingFace's tokenizer, and the whole job beside theirs.

The peer of the whole job is transformers' example of language modeling on TPUs, in our own words: `datasets` loads the
CSV, tokenizes it with `map` in batches, concatenates and cuts the ids into sequences, and a loop writes one
`tf.train.Example` at a time. It has its best settings, and two processes as ours may have.
"""

import csv
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from statistics import median
from typing import Any

from benchmarks.config import RecordsBenchOptions
from benchmarks.contender import Prepared, Work, digest
from benchmarks.contest import OURS, PEER, PEERS_PYTHON, Contender, Report, contest

LENGTH = 128
_ROWS = 75_000  # of the corpus that is made where no CSV is given
_BATCH = 1000


def main(options: RecordsBenchOptions) -> int:
    """Run both contests, print their tables and the headlines."""
    with tempfile.TemporaryDirectory() as scratch:
        path, tokenizer = _inputs(options, scratch)
        third = os.path.join(scratch, "third.csv")
        rows = _first_third(path, third)
        report = Report("records", f"{rows:,} rows of {os.path.basename(options.csv) or 'the embedded corpus'}")

        alone = {"TOKENIZERS_PARALLELISM": "false"}  # one thread each
        arguments = {"csv_path": path, "tokenizer": tokenizer}
        contenders = [
            Contender("remask, by words", OURS, "benchmarks.records:by_words", arguments, environment=alone),
            Contender(
                "tokenizers, encode_batch_fast", PEER, "benchmarks.records:encode_batch", arguments, environment=alone
            ),
        ]
        found = report.add(contest("text into ids", contenders, unit="tokens", rounds=options.rounds))
        report.headlines["records_vs_huggingface"] = found.ratio(contenders[0].name, contenders[1].name)

        work = {**arguments, "out": os.path.join(scratch, "out")}
        contenders = [
            Contender("remask", OURS, "benchmarks.records:our_job", {**work, "processes": 1}),
            Contender("remask, 2 processes", OURS, "benchmarks.records:our_job", {**work, "processes": 2}),
            Contender(
                "datasets.map and Examples, 2 processes",
                PEER,
                "benchmarks.records:peer_job",
                {**work, "processes": 2},
                python=PEERS_PYTHON,
            ),
            Contender("remask, a third of the rows", OURS, "benchmarks.records:our_job", {**work, "csv_path": third}),
        ]
        found = report.add(contest("CSV into records", contenders, unit="rows", rounds=options.rounds))
        one, two, peer, small = (contender.name for contender in contenders)
        report.headlines["records_job_vs_peer"] = found.ratio(one, peer)
        report.headlines["records_memory_growth"] = median(
            run.figures["largest_process_bytes"] / less.figures["largest_process_bytes"]
            for run, less in zip(found.runs[one], found.runs[small], strict=True)
        )
        for name in (one, two):
            report.note(f"{name}: {1 / found.ratio(name, peer, of='wall_seconds'):.1f} times as fast by the clock")
        imports = median(run.figures["imports_cpu_seconds"] for run in found.runs[peer])
        report.note(
            f"start-up is in all figures of the whole job; of the peer's, {imports:.1f} CPU-seconds are imports"
        )
        report.finish()
    return 0


def by_words(*, csv_path: str, tokenizer: str) -> Prepared:
    """Tokenize as the records job does; the memory of words begins empty."""
    from pipelines.text.tokens import encoder
    from records.tokenizer.loading import load

    texts, encode = _clean_texts(csv_path), encoder(load(tokenizer))

    def work() -> Work:
        batches = [encode(texts[start : start + _BATCH]) for start in range(0, len(texts), _BATCH)]
        return _tokens(batch.ids for batch in batches)

    return work


def encode_batch(*, csv_path: str, tokenizer: str) -> Prepared:
    """Tokenize with nothing but HuggingFace's tokenizer, at its fastest."""
    import numpy as np

    from records.tokenizer.loading import load

    texts, theirs = _clean_texts(csv_path), load(tokenizer).tokenizer()

    def work() -> Work:
        ids = []
        for start in range(0, len(texts), _BATCH):
            encoded = theirs.encode_batch_fast(texts[start : start + _BATCH], add_special_tokens=False)
            ids.append(np.array([id_ for one in encoded for id_ in one.ids], np.int32))
        return _tokens(iter(ids))

    return work


def our_job(*, csv_path: str, tokenizer: str, out: str, processes: int = 1) -> Prepared:
    """Run the command, from the start of Python to the manifest."""
    command = [sys.executable, "-m", "pipelines", "records", "--csv", csv_path, "--tokenizer", tokenizer]
    command += ["--out", out, "--max_seq_length", str(LENGTH), "--processes", str(processes)]
    rows = _count_rows(csv_path)
    shutil.rmtree(out, ignore_errors=True)

    def work() -> Work:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        # The kernel's own peak, of the largest process: the samples of the contest miss short ones.
        largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
        return Work(rows, figures={"largest_process_bytes": largest})

    return work


def peer_job(*, csv_path: str, tokenizer: str, out: str, processes: int) -> Prepared:
    """Do what transformers' example does, from its imports to the last shard; those are in its figures, too."""
    rows = _count_rows(csv_path)
    shutil.rmtree(out, ignore_errors=True)
    os.makedirs(out)
    os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"

    def work() -> Work:
        began = time.process_time()
        import datasets
        import tensorflow as tf
        from transformers import AutoTokenizer

        imports = time.process_time() - began
        theirs = AutoTokenizer.from_pretrained(tokenizer)

        def tokenize(batch: dict[str, Any]) -> dict[str, Any]:
            return theirs(batch["text"], return_attention_mask=False, return_token_type_ids=False)

        def group(batch: dict[str, Any]) -> dict[str, Any]:
            ids = [id_ for held in batch["input_ids"] for id_ in held]
            return {"input_ids": [ids[at : at + LENGTH] for at in range(0, len(ids) - LENGTH + 1, LENGTH)]}

        read = datasets.load_dataset("csv", data_files=csv_path, split="train", cache_dir=os.path.join(out, "cache"))
        settings = {"batched": True, "batch_size": _BATCH, "num_proc": processes}
        tokenized = read.map(tokenize, remove_columns=read.column_names, **settings)
        sequences = tokenized.map(group, **settings)
        count = 8
        for shard in range(count):
            held = sequences.shard(count, shard, contiguous=True)
            with tf.io.TFRecordWriter(os.path.join(out, f"{shard}.tfrecord")) as file:
                for row in held:
                    values = tf.train.Feature(int64_list=tf.train.Int64List(value=row["input_ids"]))
                    example = tf.train.Example(features=tf.train.Features(feature={"input_ids": values}))
                    file.write(example.SerializeToString())
        return Work(rows, figures={"imports_cpu_seconds": imports})

    return work


def _inputs(options: RecordsBenchOptions, scratch: str) -> tuple[str, str]:
    """Return the CSV and the folder of a tokenizer, made where none is given."""
    from pipelines.sources import sample
    from pipelines.text import tokens
    from records.tokenizer.loading import load

    path, folder = options.csv, os.path.join(scratch, "tokenizer")
    if not path:
        path = os.path.join(scratch, "sample.csv")
        sample.write_csv(path, count=_ROWS)
    if options.tokenizer:
        made = load(options.tokenizer)
    else:
        made = tokens.train(sample.reviews(5_000, seed=0), vocab_size=2_000, name="train:2000")
    made.save(folder)
    return os.path.abspath(path), folder


def _rows(path: str) -> Iterator[list[str]]:
    csv.field_size_limit(1 << 30)
    with open(path, newline="", encoding="utf-8", errors="replace") as file:
        yield from csv.reader(file)


def _count_rows(path: str) -> int:
    return sum(1 for _ in _rows(path)) - 1


def _first_third(path: str, third: str) -> int:
    """Write the header and the first third of the rows of a CSV to another one; return how many rows the first has."""
    rows = _count_rows(path)
    with open(third, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(row for number, row in enumerate(_rows(path)) if number <= rows // 3)
    return rows


def _clean_texts(path: str) -> list[str]:
    from pipelines.text.clean import clean

    rows = _rows(path)
    place = next(rows).index("text")
    return [clean(row[place]) for row in rows]


def _tokens(batches: Iterator[Any]) -> Work:
    count, parts = 0, []
    for ids in batches:
        count += len(ids)
        parts.append(ids.tobytes())
    return Work(count, digest(*parts))
