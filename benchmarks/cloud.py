"""Records in a bucket beside records on the local disk: what it costs to read them.

The bucket is in the local cloud of the tests, a process of its own whose CPU time is nobody's here: the client's side
is as with the real service, TLS and all. The local files are in the system's cache, so that to read them is to copy.
What no reader of a bucket can do without, a client shows that decrypts the same bytes and does nothing with them.
"""

import contextlib
import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping

from benchmarks.config import RecordsBenchOptions
from benchmarks.contender import Prepared, Work, digest
from benchmarks.contest import LIMIT, OURS, Contender, Contest, Report, contest
from records.errors import RemaskError

BUCKET, DISK, TLS = "records in a bucket", "records on the local disk", "their bytes over TLS, unread"
BATCH, LENGTH = 256, 128
_CORPUS_ROWS = 100_000  # where no CSV is given
_SEQUENCES = 1_000_000  # in a run
_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_SHOW_ENVIRONMENT = (
    "import json, os, sys; print(json.dumps(dict(os.environ)), flush=True); sys.stdin.read()"  # until we hang up
)


def main(options: RecordsBenchOptions) -> None:
    """Run all contests, and print the headlines."""
    with tempfile.TemporaryDirectory() as scratch, served() as environment:
        csv_path, local, remote = options.csv, os.path.join(scratch, "records"), "gs://local-bucket/records"
        if not csv_path:
            from pipelines.sources import sample

            csv_path = os.path.join(scratch, "corpus.csv")
            sample.write_csv(csv_path, count=_CORPUS_ROWS)
        for out in (local, remote):
            _make(csv_path, out, tokenizer=options.tokenizer or "train:2000", environment=environment)
        report = Report("cloud", os.path.basename(options.csv) or "the embedded corpus")
        titles = {
            "batches": f"masked batches of {BATCH} x {LENGTH}, from a bucket",
            "shards": "shards alone, from a bucket",
        }
        for function, title in titles.items():
            readers = {BUCKET: (function, remote), DISK: (function, local)}
            if function == "shards":
                readers[TLS] = ("received", remote)
            found = report.add(_contest(title, readers, environment, options.rounds))
            report.headlines[f"cloud_{function}_cpu_vs_local"] = found.ratio(BUCKET, DISK, "cpu_seconds")
        report.headlines["cloud_shards_cpu_vs_tls"] = found.ratio(BUCKET, TLS, "cpu_seconds")
        report.finish()


@contextlib.contextmanager
def served() -> Iterator[Mapping[str, str]]:
    """Run a local cloud; give the environment in which a process finds it.

    Raises:
        RemaskError: it did not start.
    """
    command = [sys.executable, "-m", "tests.cloud", "--", sys.executable, "-c", _SHOW_ENVIRONMENT]
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(
            command, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
        ) as server,
    ):
        assert server.stdin is not None
        assert server.stdout is not None
        line = server.stdout.readline()
        if not line:
            log.seek(0)
            raise RemaskError(f"the local cloud did not start: {log.read().decode(errors='replace').strip()}")
        try:
            yield json.loads(line)
        finally:
            server.stdin.close()


def batches(*, data: str, sequences: int) -> Prepared:
    """Read as `make train` does."""
    from benchmarks import input
    from trainer import cloud

    cloud.prepare(data=data)
    return input.remask(data=data, batch=BATCH, sequences=sequences)


def shards(*, data: str, sequences: int) -> Prepared:
    """Read shards whole, as `make train` does, and check their sums, but for that leave them alone."""
    from trainer import cloud

    cloud.prepare(data=data)
    import tensorflow as tf

    from records.format.reader import open_data_set
    from trainer.input.data import FILES_AT_ONCE, shard_reader

    data_set = open_data_set(data)
    held, read = data_set.manifest.data.splits["train"], shard_reader(data_set, "train")
    rows = iter(tf.data.Dataset.range(len(held)).repeat().map(read, num_parallel_calls=FILES_AT_ONCE))
    next(rows)

    def work() -> Work:
        done = 0
        while done < sequences:
            done += len(next(rows))
        return Work(done, digest(*(shard.sum64.encode() for shard in held)))

    return work


def received(*, data: str, sequences: int) -> Prepared:
    """Receive the shards, a megabyte at a time, into the same buffer."""
    import requests
    from google.auth.transport.requests import Request

    from records.format.reader import open_data_set
    from records.paths import parts
    from records.storage import credentials

    data_set, found, session = open_data_set(data), credentials.find(), requests.Session()
    held = data_set.manifest.data.splits["train"]
    found.refresh(Request())
    session.headers["Authorization"] = f"Bearer {found.token}"
    buffer = bytearray(1 << 20)

    def receive(path: str) -> None:
        bucket, name = parts(path)
        url = f"https://storage.googleapis.com/{bucket}/{name}"
        with session.get(url, stream=True, headers={"Accept-Encoding": "identity"}) as answer:
            answer.raise_for_status()
            while answer.raw._fp.readinto(buffer):
                pass

    receive(data_set.path(held[0].file))

    def work() -> Work:
        done = 0
        for shard in itertools.cycle(held):
            if done >= sequences:
                break
            receive(data_set.path(shard.file))
            done += shard.examples
        return Work(done, digest(*(shard.sum64.encode() for shard in held)))

    return work


def _contest(
    title: str, readers: Mapping[str, tuple[str, str]], environment: Mapping[str, str], rounds: int
) -> Contest:
    contenders = [
        Contender(
            name,
            OURS if name == BUCKET else LIMIT,
            f"benchmarks.cloud:{function}",
            {"data": data, "sequences": _SEQUENCES},
            environment={**environment, "CUDA_VISIBLE_DEVICES": "-1"},
        )
        for name, (function, data) in readers.items()
    ]
    return contest(title, contenders, unit="sequences", rounds=rounds)


def _make(csv_path: str, out: str, *, tokenizer: str, environment: Mapping[str, str]) -> None:
    command = [sys.executable, "-m", "pipelines", "records", "--csv", csv_path, "--out", out]
    command += ["--tokenizer", tokenizer, "--max_seq_length", str(LENGTH)]
    made = subprocess.run(command, check=False, capture_output=True, text=True, env=dict(environment))
    if made.returncode:
        raise RemaskError(f"the records to measure with could not be made: {made.stderr.strip()}")
