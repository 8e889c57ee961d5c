"""Records into masked batches, beside the pipelines of our peers and beside what reading alone costs.

The peer of the whole pipeline is transformers' example of language modeling on TPUs, in our own words: files in any
order, records of several files at once, each parsed by itself, a shuffle buffer, batches, and the masks of
`DataCollatorForLanguageModeling`. The limit is TensorFlow's reader of TFRecords: the same files, read and put into
batches, of which nothing is parsed, shuffled or masked.
"""

import glob
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from benchmarks.config import InputBenchOptions
from benchmarks.contender import Prepared, Work
from benchmarks.contest import LIMIT, OURS, PEER, PEERS_PYTHON, Contender, Contest, Report, contest, run
from benchmarks.flops import FORMULA, train_flops
from records.errors import RemaskError
from trainer.config import ModelConfig

if TYPE_CHECKING:
    import tensorflow as tf

RAW = "TFRecordDataset alone, 2 threads"
BATCHES = (256, 1024)
LENGTHS = (128, 512)
MASK_RATE = 0.15
CHIPS = {"TPU v5e": 197e12, "TPU v6e": 918e12, "H100": 989e12}
"""Dense bfloat16 FLOP/s at the peak: Google's pages of the TPU versions, NVIDIA's data sheet of the H100 SXM."""
MFU = 0.5
"""The share of the peak that training is taken to reach: more than peers report, so that more is asked of us."""

_CORPUS_ROWS = 200_000  # where no CSV is given
_SECONDS = 8.0  # of training with a stand-in for the device
_FAST, _SLOW = 1_000_000, 120_000  # sequences in a run
_WARM_UP = 4  # batches


def main(options: InputBenchOptions) -> None:
    """Run all contests, and print the headlines."""
    with tempfile.TemporaryDirectory() as scratch:
        folders = {length: _data(options, length, scratch) for length in LENGTHS}
        report = Report("input", os.path.basename(options.csv) or "the embedded corpus")
        pipelines = {size: report.add(_pipelines(folders[128], size, options.rounds)) for size in BATCHES}
        report.add(_masks(folders[128], options.rounds))
        long = report.add(_long(folders[512], options.rounds))
        rates = {128: pipelines[256].median("remask"), 512: long.median("remask, 512")}
        report.note(FORMULA)
        for length in LENGTHS:
            for text in _fed(length, rates[length]):
                report.note(text)
        report.note(_beside_a_device(folders[128]))
        for name, other in {"peer": "transformers' example", "raw_limit": RAW}.items():
            report.headlines[f"input_vs_{name}"] = min(found.ratio("remask", other) for found in pipelines.values())
        report.finish()


def needed(chip: str, length: int) -> float:
    """Return the sequences a second that a chip trains BERT-base on.

    >>> round(needed("TPU v5e", 128))
    1412
    """
    predictions = round(MASK_RATE * length)
    return CHIPS[chip] * MFU / train_flops(ModelConfig(30_522), length=length, predictions=predictions)


def remask(*, data: str, batch: int, sequences: int) -> Prepared:
    """Read as `make train` does."""
    from records.format.reader import open_data_set
    from trainer.input.data import train_batches
    from trainer.input.masking import Masking

    batches = train_batches(
        open_data_set(data),
        global_batch_size=batch,
        start_step=0,
        train_steps=sequences // batch + _WARM_UP,
        seed=0,
        masking=Masking(MASK_RATE),
        shuffle_examples=65_536,
    )
    return _consumed(batches, batch, sequences)


def transformers_example(*, data: str, batch: int, sequences: int) -> Prepared:
    """Read as transformers' example for TPUs does."""
    import tensorflow as tf

    length, masked = _length(data), _collator(data)

    def parsed(record: "tf.Tensor") -> "tf.Tensor":
        features = {"input_ids": tf.io.FixedLenFeature([length], tf.int64)}
        return tf.io.parse_single_example(record, features)["input_ids"]

    files = tf.data.Dataset.from_tensor_slices(_shards(data))
    batches = (
        files.shuffle(len(files))
        .repeat()
        .interleave(tf.data.TFRecordDataset, num_parallel_calls=tf.data.AUTOTUNE, deterministic=False)
        .map(parsed, num_parallel_calls=tf.data.AUTOTUNE)
        .shuffle(2**15)
        .batch(batch, drop_remainder=True)
        .map(masked, num_parallel_calls=tf.data.AUTOTUNE)
        .prefetch(tf.data.AUTOTUNE)
    )
    return _consumed(batches, batch, sequences)


def records_alone(*, data: str, batch: int, sequences: int, threads: int) -> Prepared:
    """Read records, and put them into batches as they are.

    Files are read in turn by one thread, or by several at once, which is how a training job reads them and, record by
    record, costs two to three times the CPU time.
    """
    import tensorflow as tf

    batches = (
        tf.data.Dataset.from_tensor_slices(_shards(data))
        .repeat()
        .interleave(
            lambda file: tf.data.TFRecordDataset(file, buffer_size=4 << 20),
            cycle_length=4,
            num_parallel_calls=threads if threads > 1 else None,
        )
        .batch(batch, drop_remainder=True)
        .prefetch(tf.data.AUTOTUNE)
    )
    return _consumed(batches, batch, sequences)


def masks(*, data: str, batch: int, sequences: int) -> Prepared:
    """Mask batches that lie in memory, as remask does."""
    import tensorflow as tf

    from records.format.reader import open_data_set
    from trainer.input.masking import Vocabulary, mask_tokens

    vocabulary = Vocabulary.of(open_data_set(data).tokenizer)

    def masked(input_ids: "tf.Tensor", number: "tf.Tensor") -> dict[str, "tf.Tensor"]:
        example_id = number * batch + tf.range(batch, dtype=tf.int64)
        return mask_tokens(tf.cast(input_ids, tf.int32), example_id, seed=0, epoch=0, vocabulary=vocabulary)

    return _in_memory(data, masked, batch, sequences)


def collator_masks(*, data: str, batch: int, sequences: int) -> Prepared:
    """Mask batches that lie in memory, with transformers' collator. It returns no positions."""
    masked = _collator(data)
    return _in_memory(data, lambda input_ids, _: masked(input_ids), batch, sequences)


def text_masks(*, data: str, batch: int, sequences: int) -> Prepared:
    """Mask batches that lie in memory, with tensorflow-text."""
    import tensorflow as tf
    import tensorflow_text as text

    described, places = _tokenizer(data), round(MASK_RATE * _length(data)) + 1
    selector = text.RandomItemSelector(
        max_selections_per_batch=places, selection_rate=MASK_RATE, unselectable_ids=described["special_ids"]
    )
    chooser = text.MaskValuesChooser(described["vocab_size"], described["mask_id"], 0.8)

    def masked(input_ids: "tf.Tensor", _: "tf.Tensor") -> tuple["tf.Tensor", ...]:
        ragged = tf.RaggedTensor.from_tensor(input_ids)
        ids, positions, originals = text.mask_language_model(ragged, selector, chooser)
        return (
            ids.to_tensor(shape=input_ids.shape),
            positions.to_tensor(shape=[None, places]),
            originals.to_tensor(shape=[None, places]),
        )

    return _in_memory(data, masked, batch, sequences)


def hub_masks(*, data: str, batch: int, sequences: int) -> Prepared:
    """Mask batches that lie in memory, with KerasHub's layer."""
    import keras_hub

    described, places = _tokenizer(data), round(MASK_RATE * _length(data)) + 1
    masker = keras_hub.layers.MaskedLMMaskGenerator(
        vocabulary_size=described["vocab_size"],
        mask_selection_rate=MASK_RATE,
        mask_token_id=described["mask_id"],
        mask_selection_length=places,
        unselectable_token_ids=described["special_ids"],
    )
    return _in_memory(data, lambda input_ids, _: masker(input_ids), batch, sequences)


def beside_a_device(*, data: str, batch: int, step_seconds: float) -> Prepared:
    """Read for a stand-in that takes the time of an accelerator's step; tell the share of time it waited.

    As in `trainer.engines.step`, the loop and its clock are TensorFlow's, so that what is timed is the input alone.
    """
    import tensorflow as tf

    from records.format.reader import open_data_set
    from trainer.input.data import train_batches
    from trainer.input.masking import Masking

    steps = round(_SECONDS / step_seconds)
    batches = iter(
        train_batches(
            open_data_set(data),
            global_batch_size=batch,
            start_step=0,
            train_steps=steps + _WARM_UP,
            seed=0,
            masking=Masking(MASK_RATE),
            shuffle_examples=65_536,
        )
    )
    for _ in range(_WARM_UP):
        next(batches)

    @tf.function
    def train(count: tf.Tensor) -> tf.Tensor:
        waited = tf.zeros([], tf.float64)
        for _ in tf.range(count):
            asked = tf.timestamp()
            with tf.control_dependencies([asked]):
                held = next(batches)
            with tf.control_dependencies(list(held.values())):
                given = tf.timestamp()
            with tf.control_dependencies([given]):
                tf.py_function(lambda: time.sleep(step_seconds), [], [])
            waited += given - asked
        return waited

    train(tf.constant(1))  # traced

    def work() -> Work:
        began = time.monotonic()
        waited = float(train(tf.constant(steps - 1)))
        return Work((steps - 1) * batch, figures={"waited": waited / (time.monotonic() - began)})

    return work


def _pipelines(data: str, batch: int, rounds: int) -> Contest:
    contenders = [
        _contender("remask", OURS, "remask", data, batch, _FAST),
        _contender("transformers' example", PEER, "transformers_example", data, batch, _SLOW),
        _contender(RAW, LIMIT, "records_alone", data, batch, _FAST, threads=2),
        _contender("TFRecordDataset alone, 1 thread", LIMIT, "records_alone", data, batch, _FAST, threads=1),
    ]
    return contest(f"masked batches of {batch} x 128", contenders, unit="sequences", rounds=rounds)


def _masks(data: str, rounds: int) -> Contest:
    batch = 2048
    contenders = [
        _contender("remask, masks", OURS, "masks", data, batch, _FAST),
        _contender("transformers' collator", PEER, "collator_masks", data, batch, _FAST // 2),
        _contender("tensorflow-text", PEER, "text_masks", data, batch, _SLOW),
        _contender("KerasHub", PEER, "hub_masks", data, batch, _SLOW),
    ]
    return contest(f"masks alone, {batch} x 128", contenders, unit="sequences", rounds=rounds)


def _long(data: str, rounds: int) -> Contest:
    contenders = [
        _contender("remask, 512", OURS, "remask", data, 256, _FAST // 4),
        _contender(RAW, LIMIT, "records_alone", data, 256, _FAST // 4, threads=2),
    ]
    return contest("masked batches of 256 x 512", contenders, unit="sequences", rounds=rounds)


def _contender(name: str, role: str, function: str, data: str, batch: int, sequences: int, **others: int) -> Contender:
    arguments = {"data": data, "batch": batch, "sequences": sequences, **others}
    python = PEERS_PYTHON if role == PEER else sys.executable
    return Contender(name, role, f"benchmarks.input:{function}", arguments, python, {"CUDA_VISIBLE_DEVICES": "-1"})


def _fed(length: int, rate: float) -> Iterator[str]:
    """Yield how many chips of each kind a core of the host feeds."""
    for chip in CHIPS:
        wanted = needed(chip, length)
        yield (
            f"one core feeds {rate / wanted:.0f} {chip} that train BERT-base at {length}: {rate:,.0f} sequences a "
            f"CPU-second; a chip at {MFU:.0%} of its {CHIPS[chip] / 1e12:.0f} TFLOP/s takes {wanted:,.0f} a second"
        )


def _beside_a_device(data: str) -> str:
    batch, chip = 256, "H100"
    arguments = {"data": data, "batch": batch, "step_seconds": batch / needed(chip, 128)}
    found = run(Contender("remask", OURS, "benchmarks.input:beside_a_device", arguments))
    return f"beside a stand-in for one {chip}, input wait is {found.figures['waited']:.2%} of the time"


def _data(options: InputBenchOptions, length: int, scratch: str) -> str:
    """Return the folder of records of this length, made where there are none."""
    if options.data and length == LENGTHS[0]:
        return options.data
    out, csv_path = os.path.join(scratch, f"records-{length}"), options.csv
    if not csv_path:
        from pipelines.sources import sample

        csv_path = os.path.join(scratch, "corpus.csv")
        if not os.path.exists(csv_path):
            sample.write_csv(csv_path, count=_CORPUS_ROWS)
    command = [sys.executable, "-m", "pipelines", "records", "--csv", csv_path, "--out", out]
    command += ["--tokenizer", options.tokenizer or "train:2000", "--max_seq_length", str(length)]
    made = subprocess.run(command, check=False, capture_output=True, text=True)
    if made.returncode:
        raise RemaskError(f"the records to measure with could not be made: {made.stderr.strip()}")
    return out


def _consumed(batches: "tf.data.Dataset", batch: int, sequences: int) -> Prepared:
    """Return what takes so many sequences from a dataset that has begun to deliver."""
    iterator = iter(batches)
    for _ in range(_WARM_UP):
        next(iterator)

    def work() -> Work:
        for _ in range(sequences // batch):
            next(iterator)
        return Work(sequences // batch * batch)

    return work


def _in_memory(data: str, masked: Any, batch: int, sequences: int) -> Prepared:
    import tensorflow as tf

    length = _length(data)
    features = {"input_ids": tf.io.FixedLenFeature([length], tf.int64)}
    records = tf.data.TFRecordDataset(_shards(data)).repeat().batch(batch, drop_remainder=True).take(8)
    held = records.map(lambda record: tf.io.parse_example(record, features)["input_ids"]).cache().repeat()
    numbered = tf.data.Dataset.zip((held, tf.data.Dataset.range(2**40)))
    batches = numbered.map(
        lambda ids, number: masked(tf.ensure_shape(ids, [batch, length]), number), num_parallel_calls=tf.data.AUTOTUNE
    )
    for _ in held.take(8):  # fill the cache
        pass
    return _consumed(batches.prefetch(tf.data.AUTOTUNE), batch, sequences)


def _collator(data: str) -> Any:
    """Return transformers' masker of a batch, [CLS], [SEP] and padding left alone as in its example."""
    from transformers import DataCollatorForLanguageModeling, PreTrainedTokenizerFast

    described = _tokenizer(data)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=os.path.join(data, "tokenizer.json"),
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )
    collator = DataCollatorForLanguageModeling(tokenizer, mlm_probability=MASK_RATE, return_tensors="tf")

    def masked(input_ids: "tf.Tensor") -> tuple["tf.Tensor", "tf.Tensor"]:
        special = (input_ids == 0) | (input_ids == described["cls_id"]) | (input_ids == described["sep_id"])
        return collator.tf_mask_tokens(
            input_ids,
            vocab_size=described["vocab_size"],
            mask_token_id=described["mask_id"],
            special_tokens_mask=special,
        )

    return masked


def _shards(data: str) -> list[str]:
    return sorted(glob.glob(os.path.join(glob.escape(data), "train-*.tfrecord")))


def _tokenizer(data: str) -> dict[str, Any]:
    return _described(data)["tokenizer"]


def _length(data: str) -> int:
    return _described(data)["max_seq_length"]


def _described(data: str) -> dict[str, Any]:
    """Return what the manifest says; the peers' environment has not what `records.format.manifest` needs."""
    with open(os.path.join(data, "manifest.json"), encoding="utf-8") as file:
        return json.load(file)["data"]
