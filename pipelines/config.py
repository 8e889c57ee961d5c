"""The options of `pipelines`. Only the standard library: help is instant."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from records.console.command_line import option, require

LONG_TEXT = ("pack", "window", "truncate")
MAX_SHARDS = 100_000
"""The last of them still has a number of five digits, and their manifest some 25 MB."""
SAMPLE_TOKENIZER = "train:2000"
DEFAULT_OUT = "out/sample"
RUNNERS = ("local", "dataflow", "portable")
ENVIRONMENTS = ("DOCKER", "PROCESS", "EXTERNAL", "LOOPBACK")

PRESETS: Mapping[str, Mapping[str, Any]] = {"sample": {"max_seq_length": 32}}
"""Options to start from: `sample` suits the embedded reviews, and a model that is to learn from them in a minute."""


@dataclass(frozen=True)
class RecordsOptions:
    """Options of `python -m pipelines records`.

    Raises:
        RemaskError: an option outside its range, or two that contradict each other.
    """

    csv: tuple[str, ...] = option(
        (), "CSV files or globs, .gz too; none: the embedded synthetic film reviews", group="what", metavar="PATH"
    )
    out: str = option(DEFAULT_OUT, "folder of the data set", group="what", metavar="DIR")
    overwrite: bool = option(False, "replace the data set that is in the folder", group="what")
    column: str = option("text", "column that holds the text", group="input")
    encoding: str = option("utf-8", "of the files; rows that do not decode are read as ISO-8859-1", group="input")
    tokenizer: str = option(
        "",
        "folder, hub name, or train:SIZE for a vocabulary made from the text "
        f"(default: bert-base-uncased; {SAMPLE_TOKENIZER} for the embedded reviews)",
        group="sequences",
        metavar="NAME|DIR|train:SIZE",
    )
    max_seq_length: int = option(128, "tokens in a sequence, [CLS], [SEP] and padding included", group="sequences")
    long_text: str = option(
        "pack",
        "pack: long texts become windows, and short pieces share a sequence; window: one window a sequence; "
        "truncate: the first window of each text, the rest is dropped",
        group="sequences",
        choices=LONG_TEXT,
    )
    validation_fraction: float = option(0.05, "share of the texts that is held out", group="output")
    num_shards: int = option(
        0,
        "shards of the train split, fewer where there are too few texts; 0: of 32 MiB each, at least 8",
        group="output",
    )
    compression: str = option("none", "of the shards", group="output", choices=("none", "gzip"))
    runner: str = option("local", "where the job runs", group="machine", choices=RUNNERS)
    processes: int = option(
        1, "worker processes of a local run; a second one pays from some hundred MB of text on", group="machine"
    )
    dry_run: bool = option(False, "look at everything, write and submit nothing", group="machine")
    beam_args: tuple[str, ...] = option((), "further options, of Beam's own: --beam_args=--network=x", group="machine")
    job_name: str = option("", "name of the job; made of the data set's name when empty", group="machine")
    job_endpoint: str = option("", "of a portable runner's job server", group="portable", metavar="HOST:PORT")
    environment_type: str = option(
        "DOCKER", "how the workers of a portable runner are started", group="portable", choices=ENVIRONMENTS
    )
    environment_config: str = option(
        "", "their image, their command, or the address of a pool of them", group="portable", metavar="TEXT"
    )
    project: str = option("", "project that pays for the job", group="dataflow")
    region: str = option("", "region in which it runs, best that of the bucket", group="dataflow")
    bucket: str = option("", "bucket of temporary files, and of the data set unless out says where", group="dataflow")
    workers: int = option(0, "machines at most; 0: what Dataflow finds right", group="dataflow")
    machine_type: str = option("", "of a worker; Dataflow's choice when empty", group="dataflow")
    service_account: str = option("", "as which the workers act; the project's default when empty", group="dataflow")
    sdk_container_image: str = option("", "image of the workers, which holds this package", group="dataflow")
    labels: tuple[str, ...] = option((), "labels of the job, for its bill", group="dataflow", metavar="KEY=VALUE")
    detach: bool = option(False, "do not wait for the end of the job", group="dataflow")

    def __post_init__(self) -> None:
        require(self.max_seq_length >= 8, "max_seq_length", self.max_seq_length, "at least 8")
        require(self.max_seq_length <= 1 << 16, "max_seq_length", self.max_seq_length, "at most 65536")
        require(0 <= self.validation_fraction < 1, "validation_fraction", self.validation_fraction, "0 to less than 1")
        require(0 <= self.num_shards <= MAX_SHARDS, "num_shards", self.num_shards, f"0 to {MAX_SHARDS}")
        require(self.processes >= 1, "processes", self.processes, "at least 1")
        require(self.workers >= 0, "workers", self.workers, "0 or more")
        if self.job_name:
            require(
                bool(re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", self.job_name)),
                "job_name",
                self.job_name,
                "up to 63 small letters, digits and dashes, with a letter first and no dash last",
            )
        for label in self.labels:
            require(
                bool(re.fullmatch(r"[a-z][-_a-z0-9]{0,62}=[-_a-z0-9]{0,63}", label)),
                "labels",
                label,
                "KEY=VALUE in small letters, digits, dashes and underscores, as bills know them",
            )
        if self.runner == "portable":
            require(
                bool(re.fullmatch(r".+:\d{1,5}", self.job_endpoint)),
                "job_endpoint",
                self.job_endpoint or "none",
                "that of a job server, such as localhost:8099: give JOB_ENDPOINT=",
            )
        if self.runner == "dataflow":
            require(bool(self.project), "project", "none", "the one that pays for the job: give PROJECT=")
            require(bool(self.region), "region", "none", "one such as us-central1: give REGION=")
            require(
                bool(self.bucket) or self.out.startswith("gs://"),
                "bucket",
                "none",
                "one in that region: give BUCKET=, or OUT=gs://...",
            )
            require(not set("/:") & set(self.bucket), "bucket", self.bucket, "a name, without gs:// and slashes")
            require(
                self.out == DEFAULT_OUT or self.out.startswith("gs://"),
                "out",
                self.out,
                "a path in a bucket, which Dataflow's workers can write",
            )
        if self.tokenizer.startswith("train:"):
            size = self.tokenizer[len("train:") :]
            require(
                size.isdecimal() and 100 <= int(size) <= 1_000_000,
                "tokenizer",
                self.tokenizer,
                "train:100 to train:1000000",
            )

    @property
    def folder(self) -> str:
        """The folder of the data set."""
        if self.runner != "dataflow" or self.out != DEFAULT_OUT:
            return self.out
        name = self.csv[0].rpartition("/")[2].partition(".")[0] if len(self.csv) == 1 else "records"
        name = "sample" if not self.csv else "records" if any(sign in name for sign in "*?[{") else name
        return f"gs://{self.bucket}/records/{name}"

    @property
    def tokenizer_or_default(self) -> str:
        """The tokenizer that was asked for, or the one that suits the input."""
        return self.tokenizer or ("bert-base-uncased" if self.csv else SAMPLE_TOKENIZER)


@dataclass(frozen=True)
class ImdbOptions:
    """Options of `python -m pipelines imdb`."""

    source: str = option("", "URL, folder or archive of the reviews; none: their public home", metavar="URL|DIR|FILE")
    out: str = option("imdb.csv", "CSV file to write", metavar="FILE")
    overwrite: bool = option(False, "replace the file")
