"""The options of training and its neighbours, and the shape of a model. Only the standard library: help is instant."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from records.console.command_line import option, require
from records.errors import RemaskError
from records.paths import is_remote
from records.tokenizer.special import PAD_ID

_MOST_LAYERS, _MOST_PARAMETERS, _MOST_SEQUENCES = 1000, 10**11, 2**20
"""Beyond which a number is a slip: what it asks for would take all memory, and this machine with it, without a word."""


@dataclass(frozen=True)
class ModelConfig:
    """The shape of a BERT, under the names of HuggingFace's `config.json`.

    Raises:
        RemaskError: a shape that cannot be built, or an architecture that is not the one `trainer.models.model`
        implements.
    """

    vocab_size: int
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    cls_token_id: int = 101

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value, number = getattr(self, field.name), (int, float) if field.type is float else int
            if isinstance(value, bool) or not isinstance(value, number):
                kind = "a number" if field.type is float else "a whole number"
                raise RemaskError(f"model: {field.name} is {value!r}, expected {kind}")
            if field.type is int and value < (0 if field.name == "cls_token_id" else 1):
                raise RemaskError(f"model: {field.name} is {value}, expected a positive number")
        for name, value, most in (
            ("num_hidden_layers", self.num_hidden_layers, _MOST_LAYERS),
            ("the number of parameters", self.parameters, _MOST_PARAMETERS),
        ):
            if value > most:
                raise RemaskError(f"model: {name} is {value:,}, expected at most {most:,}: no BERT is as large")
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
            if not 0 <= getattr(self, name) < 1:
                raise RemaskError(f"model: {name} is {getattr(self, name)}, expected 0 <= {name} < 1")
        for name in ("layer_norm_eps", "initializer_range"):
            if not 0 < getattr(self, name) <= 1:
                raise RemaskError(f"model: {name} is {getattr(self, name)}, expected more than 0, at most 1")
        if self.hidden_size % self.num_attention_heads:
            raise RemaskError(
                f"model: hidden_size {self.hidden_size} is not a multiple of num_attention_heads "
                f"{self.num_attention_heads}"
            )

    @property
    def parameters(self) -> int:
        """How many parameters the model has.

        >>> ModelConfig(vocab_size=30_522).parameters
        109514298
        """
        width, inner = self.hidden_size, self.intermediate_size
        rows = self.vocab_size + self.max_position_embeddings + self.type_vocab_size
        layer = 4 * width * (width + 1) + 2 * width * inner + inner + width + 4 * width
        head = width * (width + 1) + 2 * width + self.vocab_size
        return rows * width + 2 * width + self.num_hidden_layers * layer + head

    @classmethod
    def from_huggingface(cls, config: Mapping[str, Any], *, cls_token_id: int) -> "ModelConfig":
        """Return the shape that a HuggingFace `config.json` describes.

        Keys that say nothing about shape are left alone; those that would change the arithmetic must have the value
        that `trainer.models.model` implements.
        """
        expected = {"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute"}
        for key, value in expected.items():
            if config.get(key, value) != value:
                raise RemaskError(
                    f"model: {key} is {config[key]!r}, expected {value!r}: only BERT itself is implemented"
                )
        if config.get("is_decoder"):
            raise RemaskError("model: is_decoder is true, expected an encoder")
        if config.get("auto_map"):
            raise RemaskError(
                f"model: auto_map is {config['auto_map']!r}, so it brings code of its own along: only BERT itself is "
                f"implemented"
            )
        if (pad := config.get("pad_token_id", PAD_ID)) not in (PAD_ID, None) or isinstance(pad, bool):
            raise RemaskError(f"model: pad_token_id is {pad!r}, expected {PAD_ID}, with which the records are padded")
        if "vocab_size" not in config:
            raise RemaskError("model: config.json has no vocab_size, so it does not describe a BERT")
        names = {field.name for field in dataclasses.fields(cls)} - {"cls_token_id"}
        return cls(cls_token_id=cls_token_id, **{name: config[name] for name in names if name in config})


SCRATCH: Mapping[str, Mapping[str, Any]] = {
    "tiny": {
        "hidden_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 512,
        "initializer_range": 0.04,  # so narrow a model learns little from BERT's 0.02 in its first few hundred steps
    },
    "small": {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 1024},
    "base": {},
}
"""Shapes that `model` knows by name and that start from random weights; what is not said is BERT-base's."""

PROBES = (
    "I have watched this [MASK] and it was awesome.",
    "The acting was [MASK] and I loved it.",
)
"""What is filled while a model of film reviews is trained, with the mask token of its tokenizer."""

NO_PROBES = ("",)
"""The option `probes` where nothing is to be filled."""

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "sample": {
        "model": "tiny",
        "global_batch_size": 64,
        "train_steps": 800,
        "learning_rate": 2e-3,
        "warmup_steps": 80,
        "dropout": 0.0,
    },
    "article": {"per_replica_batch_size": 16, "train_steps": 2000, "eval_every": 200, "learning_rate": 1e-5},
}
"""Options to start from: `sample` trains a tiny BERT on the embedded corpus in a minute; `article` is the reference."""

CONTINUABLE = (
    "data",
    "run_dir",
    "eval_every",
    "checkpoint_every",
    "steps_per_loop",
    "keep_checkpoints",
    "probes",
    "tpu",
    "zone",
    "project",
    "devices",
)
"""Options that may differ when a run is continued: they change how it is watched, not what it computes. (Of the data,
the digest of its manifest must be the same, wherever it lies.)"""

SAMPLE = "out/sample"
"""Folder of the data set that 'make records' makes from the embedded corpus."""

GLOBAL_BATCH_SIZE = 64
"""Sequences a step, where neither batch size is given."""

DTYPES = ("float32", "mixed_bfloat16")

LOCAL = "local"
"""What `tpu` calls the TPU of the machine that asks."""


def usual_dtype(tpu: str) -> str:
    """Return the arithmetic where none is asked for.

    >>> usual_dtype(""), usual_dtype("local")
    ('float32', 'mixed_bfloat16')
    """
    return "mixed_bfloat16" if tpu else "float32"


_DTYPE_HELP = f"when empty, {usual_dtype(LOCAL)} on a TPU and {usual_dtype('')} elsewhere"
_TPU_HELP = f"{LOCAL}, on a TPU VM; else the name of a TPU, or grpc://ADDRESS:PORT of its hosts, separated by commas"
_ZONE_HELP = "zone of the TPU; all are searched when empty"
_PROJECT_HELP = "project of the TPU; that of the credentials when empty"


@dataclass(frozen=True)
class TrainOptions:
    """Options of `python -m trainer train`. The defaults suit the adaptation of a pretrained BERT.

    Raises:
        RemaskError: an option outside its range, or two that contradict each other.
    """

    data: str = option(SAMPLE, "folder of the data set", group="what", metavar="DIR")
    run_dir: str = option(
        "out/sample-run", "folder for checkpoints, metrics and the exported model", group="what", metavar="DIR"
    )
    model: str = option(
        "bert-base-uncased",
        f"folder or hub name of a HuggingFace BERT; or, from random weights, one of {', '.join(SCRATCH)}, or "
        "scratch:FOLDER for the shape of that folder's config.json",
        group="what",
        metavar="NAME|DIR",
    )
    train_steps: int = option(2000, "optimizer steps", group="schedule")
    global_batch_size: int = option(
        0,
        f"sequences a step, over all replicas; 0 is {GLOBAL_BATCH_SIZE}, or what per_replica_batch_size makes it",
        group="schedule",
        instead_of="per_replica_batch_size",
    )
    per_replica_batch_size: int = option(
        0,
        "sequences a step on each replica, instead of global_batch_size",
        group="schedule",
        instead_of="global_batch_size",
    )
    eval_every: int = option(200, "steps between evaluations", group="schedule")
    checkpoint_every: int = option(200, "steps between checkpoints", group="schedule")
    keep_checkpoints: int = option(2, "newest checkpoints to keep, beside the best", group="schedule")
    steps_per_loop: int = option(20, "steps on the device between two lines of metrics", group="schedule")
    learning_rate: float = option(5e-5, "peak learning rate", group="optimizer")
    warmup_steps: int = option(100, "steps of linear warm-up before the linear decay to zero", group="optimizer")
    weight_decay: float = option(0.01, "AdamW's, on kernels and embeddings only", group="optimizer")
    clip_norm: float = option(1.0, "global norm to which the reduced gradient is clipped", group="optimizer")
    mask_rate: float = option(0.15, "share of the tokens that the model must fill in while it trains", group="masks")
    whole_word: bool = option(False, "mask the pieces of a word together", group="masks")
    dropout: float = option(-1.0, "dropout of the model; -1 is what its config says", group="model")
    dtype: str = option("", f"arithmetic; {_DTYPE_HELP}", group="model", choices=DTYPES)
    seed: int = option(0, "of the order, the masks, the dropout and fresh weights", group="model")
    shuffle_examples: int = option(65536, "sequences that are shuffled together", group="input")
    tpu: str = option("", _TPU_HELP, group="devices", metavar="local|NAME")
    zone: str = option("", _ZONE_HELP, group="devices")
    project: str = option("", _PROJECT_HELP, group="devices")
    devices: int = option(0, "replicas to train on; 0 is every GPU, or else one CPU", group="devices")
    probes: tuple[str, ...] = option(
        (),
        'sentences with a mask token to fill at each evaluation; "" for none. When not given, two that suit the data: '
        "of film reviews, or out of the held-out text",
        group="what",
        metavar="TEXT",
    )

    def __post_init__(self) -> None:
        positive = (
            "train_steps",
            "eval_every",
            "checkpoint_every",
            "keep_checkpoints",
            "steps_per_loop",
            "shuffle_examples",
        )
        for name in positive:
            value = getattr(self, name)
            require(1 <= value < 2**31, name, value, "1 to 2**31 - 1, as devices count")
        for name in ("global_batch_size", "per_replica_batch_size"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")
            _require_batch(getattr(self, name), name)
        require(
            not (self.global_batch_size and self.per_replica_batch_size),
            "per_replica_batch_size",
            self.per_replica_batch_size,
            f"none beside global_batch_size, which is {self.global_batch_size}",
        )
        require(
            0 <= self.warmup_steps <= self.train_steps,
            "warmup_steps",
            self.warmup_steps,
            f"0 to train_steps, which is {self.train_steps}: give both",
        )
        for name in ("learning_rate", "weight_decay", "clip_norm"):
            require(math.isfinite(getattr(self, name)), name, getattr(self, name), "a finite number")
        require(self.learning_rate > 0, "learning_rate", self.learning_rate, "more than 0")
        require(self.weight_decay >= 0, "weight_decay", self.weight_decay, "0 or more")
        require(self.clip_norm > 0, "clip_norm", self.clip_norm, "more than 0")
        require(0 < self.mask_rate <= 1, "mask_rate", self.mask_rate, "more than 0, at most 1")
        require(self.dropout == -1 or 0 <= self.dropout < 1, "dropout", self.dropout, "-1, or 0 <= dropout < 1")
        _require_devices(self)
        if is_remote_tpu(self.tpu):
            require(
                is_remote(self.run_dir),
                "run_dir",
                self.run_dir,
                f"a folder in a bucket, as in RUN=gs://BUCKET/run, since the hosts of TPU {self.tpu} write there, too",
            )
        require("" not in self.probes or self.probes == NO_PROBES, "probes", "an empty one", "none beside others")
        _require_seed(self.seed)


def _require_seed(seed: int) -> None:
    require(0 <= seed < 2**63, "seed", seed, "0 to 2**63 - 1")


def is_remote_tpu(tpu: str) -> bool:
    """Say whether an option `tpu` names a TPU of other machines than this.

    >>> is_remote_tpu("node-1"), is_remote_tpu("local"), is_remote_tpu("")
    (True, False, False)
    """
    return tpu not in ("", LOCAL)


def _require_batch(sequences: int, name: str) -> None:
    require(
        sequences <= _MOST_SEQUENCES, name, sequences, f"at most {_MOST_SEQUENCES:,}: no machine holds more at once"
    )


def _require_devices(options: "TrainOptions | EvaluateOptions") -> None:
    """Refuse options of the devices that contradict each other, or the data."""
    tpu = options.tpu
    require(options.devices >= 0, "devices", options.devices, "0 or more")
    require(not (tpu and options.devices), "devices", options.devices, "none beside tpu, whose cores are all used")
    for name in ("zone", "project"):
        value = getattr(options, name)
        require(not value or is_remote_tpu(tpu), name, value, "none unless tpu is the name of a TPU: give TPU=")
    if options.data:
        require_within_reach(options.data, tpu)


def require_within_reach(data: str, tpu: str) -> None:
    """Refuse a data set that a TPU cannot read.

    Raises:
        RemaskError: the TPU is another machine, and the data set lies on the disk of this one.
    """
    require(
        not is_remote_tpu(tpu) or is_remote(data),
        "data",
        data,
        f"a folder in a bucket, as in DATA=gs://BUCKET/records, since the hosts of TPU {tpu} read it themselves",
    )


@dataclass(frozen=True)
class EvaluateOptions:
    """Options of `python -m trainer evaluate`.

    Raises:
        RemaskError: an option outside its range.
    """

    data: str = option(
        "", f"folder of the data set; the one the run was trained on when empty, {SAMPLE} for a model", metavar="DIR"
    )
    run_dir: str = option("out/sample-run", "evaluate the model that this run exported", metavar="DIR")
    model: str = option("", "evaluate this folder or hub name instead", metavar="NAME|DIR")
    global_batch_size: int = option(GLOBAL_BATCH_SIZE, "sequences at a time, over all replicas")
    dtype: str = option("", f"arithmetic; {_DTYPE_HELP}", choices=DTYPES)
    tpu: str = option("", _TPU_HELP, metavar="local|NAME")
    zone: str = option("", _ZONE_HELP)
    project: str = option("", _PROJECT_HELP)
    devices: int = option(0, "replicas; 0 is every GPU, or else one CPU")

    def __post_init__(self) -> None:
        require(self.global_batch_size >= 1, "global_batch_size", self.global_batch_size, "at least 1")
        _require_batch(self.global_batch_size, "global_batch_size")
        _require_devices(self)


@dataclass(frozen=True)
class ExportOptions:
    """Options of `python -m trainer export`."""

    data: str = option("", "folder of the data set; the one the run was trained on when empty", metavar="DIR")
    run_dir: str = option("out/sample-run", "folder of the run", metavar="DIR")
    out: str = option("", "folder to write; RUN_DIR/export when empty", metavar="DIR")
    checkpoint: str = option("best", "best by held-out loss, or the last one", choices=("best", "last"))


@dataclass(frozen=True)
class FillMaskOptions:
    """Options of `python -m trainer fill-mask`.

    Raises:
        RemaskError: an option outside its range.
    """

    text: str = option("", "a text with one or several [MASK]s; - reads one text a line from standard input")
    run_dir: str = option("out/sample-run", "fill with the model that this run exported", metavar="DIR")
    model: str = option("", "fill with this folder or hub name instead", metavar="NAME|DIR")
    top_k: int = option(5, "how many words to show for each [MASK]")

    def __post_init__(self) -> None:
        require(self.top_k >= 1, "top_k", self.top_k, "at least 1")
        if not self.text:
            raise RemaskError(
                "text: nothing to fill; give a text, such as TEXT='The film was [MASK].', or - for standard input"
            )


@dataclass(frozen=True)
class DoctorOptions:
    """Options of `python -m trainer doctor`."""

    data: str = option("", "folder of the data set; that of the run, if any, when empty", metavar="DIR")
    run_dir: str = option("", "folder of the run that is to be, or to be continued", metavar="DIR")
    model: str = option(
        "",
        f"model that is to be trained, as train names it; that of the run, or else {TrainOptions.model}, when empty",
        metavar="NAME|DIR",
    )
    tpu: str = option("", "TPU that is to train it, as train names it", metavar="local|NAME")
    zone: str = option("", _ZONE_HELP)
    project: str = option("", _PROJECT_HELP)


@dataclass(frozen=True)
class ShowOptions:
    """Options of `python -m trainer show`.

    Raises:
        RemaskError: an option outside its range.
    """

    data: str = option(SAMPLE, "folder of the data set", metavar="DIR")
    n: int = option(3, "how many sequences")
    split: str = option("train", "which split", choices=("train", "validation"))
    masks: bool = option(False, "show how epochs 0, 1 and 2 mask each sequence")
    mask_rate: float = option(0.15, "share of the tokens to mask")
    whole_word: bool = option(False, "mask the pieces of a word together")
    seed: int = option(0, "seed of the masks")

    def __post_init__(self) -> None:
        require(self.n >= 1, "n", self.n, "at least 1")
        require(0 < self.mask_rate <= 1, "mask_rate", self.mask_rate, "more than 0, at most 1")
        _require_seed(self.seed)
