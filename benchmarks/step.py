"""Steps of training, beside transformers' TFBertForMaskedLM and KerasHub's BertMaskedLM: `make bench-step`.

The same model for all, 4 layers of 256 with bert-base-uncased's 30,522 words, and the same batches, in memory: ids
drawn at random, of which the same 15 % are to be found again. All drop a tenth, clip the gradient at global norm 1 and
apply AdamW. Ours runs as `make train` runs it, by `trainer.engines.step.TrainLoop`; each peer as one `tf.function`; all
as they are and compiled by XLA (`jit_compile=True`), in float32 and in mixed_bfloat16.
"""

import math
import os
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.config import StepBenchOptions
from benchmarks.contender import Prepared, Work
from benchmarks.contest import OURS, PEER, PEERS_PYTHON, Contender, Contest, Report, contest, run
from records.errors import RemaskError
from trainer.config import ModelConfig

LAYERS, WIDTH, HEADS, INTERMEDIATE, WORDS = 4, 256, 4, 1024, 30522
LENGTH, SEQUENCES = 128, 32
LEARNING_RATE, WEIGHT_DECAY, EPSILON, CLIP_NORM, MASK_RATE = 1e-4, 0.01, 1e-6, 1.0, 0.15
CLS, SEP, MASK, FIRST_WORD = 101, 102, 103, 1996
WARM_UP = 2
"""Steps before what is measured: the first traces and compiles."""

TOKENS_A_REVIEW, SPREAD = 302, 0.66
"""Mean and (of the logarithm) standard deviation of the number of tokens in an IMDB review, by bert-base-uncased's
tokenizer, of which the lengths of the contest of packed sequences are drawn."""

LOSSES_AGREE = 1e-4
"""How far the first losses from the same weights may lie apart, without dropout; they are about 10."""

Batch = dict[str, NDArray[Any]]


def main(options: StepBenchOptions) -> None:
    """Run all contests, and print the headlines."""
    report = Report("step", f"random ids, {SEQUENCES} sequences of {LENGTH}; {LAYERS} x {WIDTH}, {WORDS:,} words")
    report.note(_same_loss())
    found = {dtype: report.add(_contest(options, dtype)) for dtype in ("float32", "mixed_bfloat16")}
    packed = report.add(_packed_contest(options))
    best = {
        (dtype, peer): max((name for name in of_dtype.runs if name.startswith(peer)), key=of_dtype.median)
        for dtype, of_dtype in found.items()
        for peer in ("transformers", "KerasHub")
    }
    for (dtype, _), name in best.items():
        report.note(_beside(found[dtype], name, dtype))
    padded = max((name for name in packed.runs if name.startswith("transformers")), key=packed.median)
    report.note(
        f"packed: {packed.ratio('remask, packed', padded):.2f} times the real tokens per CPU-second of {padded}, whose "
        f"rows hold one window each and are {1 - _filled('padded'):.0%} padding"
    )
    plain = best["float32", "transformers"]
    report.headlines["step_vs_peer"] = found["float32"].ratio("remask", plain)
    report.headlines["step_memory_vs_peer"] = found["float32"].ratio("remask", plain, "peak_bytes")
    report.finish()


def _beside(found: Contest, name: str, dtype: str) -> str:
    return (
        f"{dtype}: {found.ratio('remask', name):.2f} times the sequences per CPU-second of {name}, its best setting, "
        f"with {found.ratio('remask', name, 'peak_bytes'):.2f} of its memory"
    )


def _contest(options: StepBenchOptions, dtype: str) -> Contest:
    contenders = [
        _contender(name, function, dtype=dtype, jit_compile=jit_compile, steps=options.steps)
        for name, function in (("remask", "remask"), ("transformers", "transformers"), ("KerasHub", "keras_hub"))
        for jit_compile in (False, True)
    ]
    return contest(f"step, {dtype}", contenders, unit="sequences", rounds=options.rounds)


def _packed_contest(options: StepBenchOptions) -> Contest:
    chosen = {"dtype": "float32", "steps": options.steps, "count": "tokens"}
    contenders = [
        _contender("remask, packed", "remask", **chosen, rows="packed"),
        _contender("remask, padded", "remask", **chosen, rows="padded"),
        _contender("transformers, padded", "transformers", **chosen, rows="padded"),
        _contender("transformers, padded", "transformers", **chosen, rows="padded", jit_compile=True),
        _contender("KerasHub, padded", "keras_hub", **chosen, rows="padded"),
    ]
    return contest("step, packed", contenders, unit="tokens", rounds=options.rounds)


def _contender(name: str, function: str, **arguments: Any) -> Contender:
    name += ", XLA" * arguments.get("jit_compile", False)
    entry = f"benchmarks.step:{function}"
    if function == "remask":
        return Contender(name, OURS, entry, arguments)
    return Contender(name, PEER, entry, arguments, PEERS_PYTHON, {"TF_USE_LEGACY_KERAS": "1"})


def _same_loss() -> str:
    """Take a step from the same weights, without dropout, with ours and with transformers' model.

    Raises:
        RemaskError: the losses differ.
    """
    with tempfile.TemporaryDirectory() as folder:
        arguments = {"dropout": 0.0, "steps": 1, "weights": folder}
        ours, theirs = (
            run(_contender(function, function, **arguments)).figures["first_loss"]
            for function in ("remask", "transformers")
        )
    if not math.isclose(ours, theirs, rel_tol=0, abs_tol=LOSSES_AGREE):
        raise RemaskError(f"the first losses from the same weights are {ours} and {theirs}: not the same work")
    return f"loss of the first step from the same weights: {ours:.6f} ours, {theirs:.6f} TFBertForMaskedLM"


def remask(
    *,
    steps: int,
    dtype: str = "float32",
    jit_compile: bool = False,
    rows: str = "full",
    dropout: float = 0.1,
    weights: str = "",
    count: str = "sequences",
) -> Prepared:
    """Train with `trainer.engines.step.TrainLoop`; with `weights`, write the initial ones to that folder."""
    import tensorflow as tf

    from trainer.config import TrainOptions
    from trainer.engines.optimizer import make_optimizer, make_schedule
    from trainer.engines.step import TrainLoop
    from trainer.models.bridge import write_checkpoint
    from trainer.models.model import BertMaskedLM

    batch = make_batch(rows)
    model = BertMaskedLM(_config(dropout), seed=0, dtype=dtype)
    if weights:
        write_checkpoint(model, weights)
    schedule = make_schedule(TrainOptions(learning_rate=LEARNING_RATE, warmup_steps=0, train_steps=1000))
    optimizer = make_optimizer(model.trainable_variables, schedule, weight_decay=WEIGHT_DECAY)
    loop = TrainLoop(
        tf.distribute.get_strategy(), model, optimizer, seed=0, clip_norm=CLIP_NORM, jit_compile=jit_compile
    )
    batches = iter(tf.data.Dataset.from_tensors(batch).repeat())
    first = loop(batches, 0, WARM_UP)

    def train() -> Work:
        found = loop(batches, WARM_UP, steps)
        return _work(batch, steps, count, first_loss=float(first.loss[0]), loss=float(found.loss[-1]))

    return train


def transformers(
    *,
    steps: int,
    dtype: str = "float32",
    jit_compile: bool = False,
    rows: str = "full",
    dropout: float = 0.1,
    weights: str = "",
    count: str = "sequences",
) -> Prepared:
    """Train TFBertForMaskedLM on its own loss, logits at every position and all, with the optimizer of its examples."""
    import tensorflow as tf
    import tf_keras
    from safetensors.numpy import load_file
    from transformers import AdamWeightDecay, BertConfig, TFBertForMaskedLM
    from transformers.modeling_tf_pytorch_utils import load_pytorch_state_dict_in_tf2_model

    tf_keras.mixed_precision.set_global_policy(dtype)
    batch = make_batch(rows)
    shape = {name: value for name, value in asdict(_config(dropout)).items() if name != "cls_token_id"}
    model = TFBertForMaskedLM(BertConfig(**shape))
    if weights:  # its `from_pretrained` stumbles over the current safetensors
        load_pytorch_state_dict_in_tf2_model(model, load_file(f"{weights}/model.safetensors"), allow_missing_keys=True)
    optimizer = AdamWeightDecay(
        LEARNING_RATE,
        weight_decay_rate=WEIGHT_DECAY,
        epsilon=EPSILON,
        exclude_from_weight_decay=["LayerNorm", "layer_norm", "bias"],
    )
    labels = np.full_like(batch["input_ids"], -100)
    masked_rows, places = np.nonzero(batch["masked_lm_weights"])
    labels[masked_rows, batch["masked_lm_positions"][masked_rows, places]] = batch["masked_lm_ids"][masked_rows, places]
    inputs = {"input_ids": batch["input_ids"], "attention_mask": np.int32(batch["input_ids"] > 0), "labels": labels}
    inputs = {name: tf.constant(value) for name, value in inputs.items()}

    @tf.function(jit_compile=jit_compile)
    def step() -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.cast(model(inputs, training=True).loss, tf.float32))
        gradients = tape.gradient(loss, model.trainable_variables)
        gradients, _ = tf.clip_by_global_norm(gradients, CLIP_NORM)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return loss

    return _peer_steps(lambda: float(step()), batch, steps, count)


def keras_hub(
    *, steps: int, dtype: str = "float32", jit_compile: bool = False, rows: str = "full", count: str = "sequences"
) -> Prepared:
    """Train KerasHub's BertMaskedLM, whose head is at the masked positions only, by Keras's own train step."""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    import keras
    from keras_hub.models import BertBackbone, BertMaskedLM

    batch = make_batch(rows)
    backbone = BertBackbone(
        vocabulary_size=WORDS,
        num_layers=LAYERS,
        num_heads=HEADS,
        hidden_dim=WIDTH,
        intermediate_dim=INTERMEDIATE,
        dropout=0.1,
        dtype=dtype,
    )
    model = BertMaskedLM(backbone=backbone, preprocessor=None)
    model.compile(
        optimizer=keras.optimizers.AdamW(
            LEARNING_RATE, weight_decay=WEIGHT_DECAY, epsilon=EPSILON, global_clipnorm=CLIP_NORM
        ),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        weighted_metrics=[],
        jit_compile=jit_compile,
    )
    inputs = {
        "token_ids": batch["input_ids"],
        "padding_mask": np.int32(batch["input_ids"] > 0),
        "segment_ids": np.zeros_like(batch["input_ids"]),
        "mask_positions": batch["masked_lm_positions"],
    }
    ids, weights = batch["masked_lm_ids"], batch["masked_lm_weights"]
    return _peer_steps(lambda: float(model.train_on_batch(inputs, ids, weights)), batch, steps, count)


def _peer_steps(step: Callable[[], float], batch: Batch, steps: int, count: str) -> Prepared:
    first, *_ = (step() for _ in range(WARM_UP))

    def train() -> Work:
        *_, last = (step() for _ in range(steps))
        return _work(batch, steps, count, first_loss=first, loss=last)

    return train


def _work(batch: Batch, steps: int, count: str, **figures: float) -> Work:
    """Return what was done; padding is no work where tokens are counted."""
    a_step = len(batch["input_ids"]) if count == "sequences" else np.count_nonzero(batch["input_ids"])
    return Work(float(steps * a_step), figures=figures)


def make_batch(rows: str, *, sequences: int = SEQUENCES, length: int = LENGTH) -> Batch:
    """Return a masked batch of random words, as `trainer.input.data` would give it.

    Args:
        sequences: how many rows.
        length: of a row.
        rows: "full", without padding; "padded", windows of documents, a row each; "packed", the same, as many to
            a row as find room.

    >>> {name: array.shape for name, array in make_batch("full").items()} # doctest: +NORMALIZE_WHITESPACE
    {'input_ids': (32, 128), 'masked_lm_positions': (32, 20), 'masked_lm_ids': (32, 20), 'masked_lm_weights': (32, 20)}
    """
    draw = np.random.default_rng(0)
    ids = np.zeros((sequences, length), np.int32)
    for row, windows in zip(ids, _rows_of_windows(rows, sequences, length, draw), strict=True):
        at = 0
        for words in windows:
            row[at : at + words + 2] = [CLS, *draw.integers(FIRST_WORD, WORDS, words), SEP]
            at += words + 2
    places = math.ceil(MASK_RATE * length)
    positions, true, weights = (np.zeros((sequences, places), kind) for kind in (np.int32, np.int32, np.float32))
    for number, row in enumerate(ids):
        maskable = np.flatnonzero(row >= FIRST_WORD)
        chosen = np.sort(draw.permutation(maskable)[: max(1, round(MASK_RATE * len(maskable)))])
        positions[number, : len(chosen)], true[number, : len(chosen)] = chosen, row[chosen]
        weights[number, : len(chosen)] = 1
        row[chosen] = MASK
    return {"input_ids": ids, "masked_lm_positions": positions, "masked_lm_ids": true, "masked_lm_weights": weights}


def _rows_of_windows(rows: str, sequences: int, length: int, draw: np.random.Generator) -> list[list[int]]:
    """Return, for each row of a batch, how many words each of its windows has."""
    room = length - 2
    if rows == "full":
        return [[room]] * sequences
    location = math.log(TOKENS_A_REVIEW) - SPREAD**2 / 2  # so that the mean is what it is
    windows: list[int] = []
    for words in draw.lognormal(location, SPREAD, 20 * sequences).astype(int).tolist():
        windows += [room] * (words // room) + [words % room] * (words % room > 0)
    windows = [windows[number] for number in draw.permutation(len(windows))]
    if rows == "padded":
        return [[words] for words in windows[:sequences]]
    packed: list[list[int]] = []
    for words in windows:  # into the first row with room for them
        row = next((row for row in packed if sum(row) + 2 * len(row) + words + 2 <= length), None)
        if row is None:
            packed.append([words])
        else:
            row.append(words)
    return [packed[number] for number in draw.permutation(len(packed))[:sequences]]


def _filled(rows: str) -> float:
    """Return the share of a batch that is no padding."""
    return float(np.mean(make_batch(rows)["input_ids"] > 0))


def _config(dropout: float) -> ModelConfig:
    return ModelConfig(
        vocab_size=WORDS,
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=INTERMEDIATE,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
