"""The train step as the compiler for TPUs sees it, without a TPU: `make tpu-check`.

TensorFlow gives the program that XLA would be given on a TPU (`benchmarks.tpu_hlo`), and libtpu compiles it on this
machine (`benchmarks.tpu_compile`). What it says of memory is what the chip would hold. What it says of time is its own
estimate of cycles, operation by operation: good for comparing one program with another, no measurement. Some operations
have no estimate, and count as nothing: drawing random bits, and transfers beside the arithmetic, are among them,
so that the time is more than it says, and the MFU less.
"""

import dataclasses
import json
import math
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.config import TpuOptions
from benchmarks.contest import Report
from benchmarks.flops import FORMULA, train_flops
from records.errors import RemaskError
from trainer.config import SCRATCH, ModelConfig

WORDS = 30_522
"""Of the vocabulary of a model that is known by its name alone: that of bert-base-uncased."""

ESTIMATE = '"estimated_cycles"'

RESULTS = ""
"""Folder of the results; that of all benchmarks where empty."""

_ROOT = Path(__file__).resolve().parent.parent


class Chip(NamedTuple):
    """What a chip can do."""

    flops: float  # a second, bfloat16, at the peak
    memory: float  # bytes
    hertz: float  # the clock that makes its matrix units reach the peak
    network: float  # bytes a second that it can send to other chips, over all its links


CHIPS = {
    "v4": Chip(275e12, 32e9, 1.05e9, 300e9),
    "v5e": Chip(197e12, 16e9, 1.5e9, 200e9),
    "v5p": Chip(459e12, 95e9, 1.75e9, 600e9),
    "v6e": Chip(918e12, 32e9, 1.75e9, 400e9),
}
"""By the first word of a topology; FLOP/s, memory and network are from Google's pages of the TPU versions."""

_BYTES = {"f32": 4, "bf16": 2, "s32": 4, "u32": 4}

GROUPS = {
    "random bits of dropout": r"random_uniform|stateless_random|rng|GreaterEqual",
    "optimizer and gradient norm": r"adamw|Adam|global_norm|L2Loss",
    "dense layers": r"_dense\w*/Tensordot|encoder_layer/Tensordot|BiasAdd",
    "attention": r"encoder_layer\w*/(MatMul|Softmax|transpose|split|einsum|concat)",
    "vocabulary and loss": r"transform|decoder|masked_lm/MatMul|masked_lm/Tensordot|Softmax|Max|Exp|Log|one_hot",
    "embeddings": r"embeddings|Gather|Scatter",
}
"""What an operation belongs to, by its name: the first group whose pattern is found in it. The rest is elementwise:
norms, gelu, dropout's products, casts."""


def main(options: TpuOptions) -> None:
    """Compile, and print what the compiler says."""
    chip = CHIPS.get(options.topology.partition(":")[0])
    if chip is None:
        raise RemaskError(
            f"topology: found {options.topology}, expected one of {', '.join(CHIPS)} and its size: v5e:1x1"
        )
    config = model_config(options.model)
    python = options.compiler if os.path.isabs(options.compiler) else str(_ROOT / options.compiler)
    if not os.path.exists(python):
        raise RemaskError(f"compiler: no {options.compiler}; run this by way of 'make tpu-check', which sets it up")
    with tempfile.TemporaryDirectory() as scratch:
        program, text = (os.path.join(scratch, name) for name in ("step.pb", "step.txt"))
        shape = {"batch": options.batch, "length": options.length}
        emitted = {"config": dataclasses.asdict(config), **shape, "path": program}
        print(f"model     {options.model}: {options.batch} sequences of {options.length}, bfloat16, with dropout")
        _output([sys.executable, "-m", "benchmarks.tpu_hlo", json.dumps(emitted)])
        print("compiling; minutes for a model of twelve layers", flush=True)
        script = str(_ROOT / "benchmarks" / "tpu_compile.py")
        found = json.loads(_output([python, script, program, options.topology, text]).splitlines()[-1])
        if "error" in found:
            raise RemaskError(refused(found["error"], options.topology))
        compiled = Path(text).read_text()
        cycles, uncounted, sums = cycles_by_name(compiled), without_estimate(compiled), all_reduces(compiled)
    name = "tpu" if found["replicas"] == 1 else "tpu_chips"
    report = Report(name, f"{options.model}, {options.batch} x {options.length}, {options.topology}")
    for line in described(found, cycles, sums, config, options, chip):
        report.note(line)
    report.note(optimistic(uncounted))
    seconds = sum(cycles.values()) / chip.hertz + seconds_to_sum(sum(sums), int(found["replicas"]), chip)
    report.headlines[f"{name}_step_mfu_estimate"] = _flops(config, options) / seconds / chip.flops
    report.finish(RESULTS)


def described(
    found: Mapping[str, float],
    cycles: Counter[str],
    sums: Sequence[int],
    config: ModelConfig,
    options: TpuOptions,
    chip: Chip,
) -> Iterator[str]:
    """Yield the lines that tell of a compiled program."""
    replicas = int(found["replicas"])
    where = f"{options.topology} ({replicas} x {found['chip']})"
    yield f"compiles  for {where}, in {found['seconds']:.0f} s: a global batch of {replicas * options.batch:,}"
    held = found["arguments"] + found["outputs"] - found["aliased"] + found["temporary"] + found["code"]
    verdict = "fits" if held < chip.memory else "DOES NOT FIT"
    yield f"memory    {held / 1e9:.2f} GB of the chip's {chip.memory / 1e9:.0f} GB: {verdict}"
    donated = found["aliased"] / found["outputs"]
    yield f"donated   {donated:.0%} of what the step returns takes the place of what it was given"
    seconds, flops = sum(cycles.values()) / chip.hertz, _flops(config, options)
    yield f"work      {flops / 1e12:.2f} TFLOP: {FORMULA}, times {options.batch}"
    for name, share in sorted(shares(cycles).items(), key=lambda item: -item[1]):
        yield f"  {share:6.1%}  {seconds * share * 1e3:7.2f} ms  {name}"
    more = seconds_to_sum(sum(sums), replicas, chip)
    if sums:
        yield f"sums      {sum(sums) / 1e6:,.1f} MB over {replicas} replicas, all-reduce in {len(sums)} parts"
        yield f"  at least {more * 1e3:.2f} ms at a chip's {chip.network / 1e9:.0f} GB/s; the compiler has no estimate"
    yield (
        f"estimate  {sum(cycles.values()) / 1e6:.1f} million cycles, {(seconds + more) * 1e3:.1f} ms a step, "
        f"MFU {flops / (seconds + more) / chip.flops:.1%}, by the compiler's own cycles; not measured"
    )
    yield f"input     must deliver {options.batch / (seconds + more):,.0f} sequences a second to each chip"


def model_config(model: str) -> ModelConfig:
    """Return the shape of a model: one that `make train` knows by name, or that of a folder's `config.json`.

    Raises:
        RemaskError: neither.

    >>> model_config("tiny").hidden_size, model_config("base").num_hidden_layers
    (128, 12)
    """
    if model in SCRATCH:
        return ModelConfig(**{"vocab_size": WORDS, **SCRATCH[model]})
    path = Path(model) / "config.json"
    if not path.is_file():
        raise RemaskError(f"model: no {path}; give a folder that has one, or one of {', '.join(SCRATCH)}")
    return ModelConfig.from_huggingface(json.loads(path.read_text()), cls_token_id=101)


def cycles_by_name(program: str) -> Counter[str]:
    r"""Return the estimated cycles of the entry computation of a compiled program, by the name of the operation.

    >>> step = '%f.1 = f32[] fusion(), metadata={op_name="adamw/Mul_7"}, backend_config={"estimated_cycles":"30"}'
    >>> cycles_by_name("%inner {\n}\nENTRY %main {\n" + step + "\n" + step + "\n}")
    Counter({'adamw/Mul': 60})
    """
    cycles: Counter[str] = Counter()
    for line in program[program.index("\nENTRY") :].splitlines():
        if estimate := re.search(r'"estimated_cycles":"(\d+)"', line):
            name = re.search(r'op_name="([^"]*)"', line)
            cycles[re.sub(r"_?\d+", "", name[1] if name else line.split()[0])] += int(estimate[1])
    return cycles


def all_reduces(program: str) -> list[int]:
    r"""Return the bytes of each all-reduce of a compiled program's entry computation.

    >>> step = "%sum.1 = (f32[3]{0:T(128)S(1)}, bf16[10,16]{0,1}) all-reduce(%a, %b), replica_groups={}"
    >>> all_reduces("%inner {\n}\nENTRY %main {\n" + step + "\n}")
    [332]
    """
    entry = program[program.index("\nENTRY") :].splitlines()
    results = (re.search(r" = (.*?) all-reduce(?:-start)?\(", line) for line in entry)
    return [
        sum(
            _BYTES[kind] * math.prod(map(int, filter(None, shape.split(","))))
            for kind, shape in re.findall(r"\b([a-z]+\d+)\[([\d,]*)\]", result[1])
        )
        for result in results
        if result
    ]


def seconds_to_sum(size: int, replicas: int, chip: Chip) -> float:
    """Return the least time that it takes chips to add up `size` bytes of each: all send at once, all that they can.

    Of what is summed, each sends all but its own part twice: once to be summed, once as the sum (Patarasuk and Yuan,
    2009, Bandwidth optimal all-reduce algorithms for clusters of workstations).

    >>> seconds_to_sum(400, 4, Chip(flops=1, memory=1, hertz=1, network=100))
    6.0
    """
    return 2 * (replicas - 1) / replicas * size / chip.network


def without_estimate(program: str) -> Counter[str]:
    r"""Return how many operations that take time have no estimate, by their kind: random bits and transfers.

    >>> bits = "  %r.1 = (u64[2], u32[8]) rng-bit-generator(%k)"
    >>> without_estimate("%inner {\n}\nENTRY %main {\n" + bits + "\n}")
    Counter({'rng-bit-generator': 1})
    """
    entry = program[program.index("\nENTRY") :].splitlines()
    kinds = (
        re.search(r" (rng-bit-generator|copy-start|slice-start)\(", line) for line in entry if ESTIMATE not in line
    )
    return Counter(kind[1] for kind in kinds if kind)


def optimistic(uncounted: Counter[str]) -> str:
    """Return what to say of operations that are not in the estimate.

    >>> optimistic(Counter({"rng-bit-generator": 38}))
    'optimistic: without an estimate, and counted as no time, are 38 rng-bit-generator'
    """
    if not uncounted:
        return "every draw of random bits and every transfer has an estimate"
    listed = ", ".join(f"{count:,} {kind}" for kind, count in sorted(uncounted.items()))
    return f"optimistic: without an estimate, and counted as no time, are {listed}"


def shares(cycles: Counter[str]) -> dict[str, float]:
    """Return the share of each group of operations.

    >>> shares(Counter({"adamw/Mul": 1, "gradient_tape/encoder_layer/output_dense/Tensordot/MatMul": 2, "mul": 1}))
    {'optimizer and gradient norm': 0.25, 'dense layers': 0.5, 'elementwise': 0.25}
    """
    total: Counter[str] = Counter()
    for name, count in cycles.items():
        group = next((group for group, pattern in GROUPS.items() if re.search(pattern, name)), "elementwise")
        total[group] += count
    return {group: count / sum(cycles.values()) for group, count in total.items()}


def refused(error: str, topology: str) -> str:
    r"""Return what to say where the compiler would not.

    >>> refused("INVALID_ARGUMENT: op x is not supported\nmore", "v5e:1x1")
    'v5e:1x1: the step does not compile: INVALID_ARGUMENT: op x is not supported'
    """
    first = next((line for line in error.splitlines() if line.strip()), "no reason given")
    return f"{topology}: the step does not compile: {first[:500]}"


def _flops(config: ModelConfig, options: TpuOptions) -> float:
    predictions = -(-15 * options.length // 100)
    return options.batch * train_flops(config, length=options.length, predictions=predictions)


def _output(command: list[str]) -> str:
    """Run a command and return what it prints.

    Raises:
        RemaskError: it failed; the text ends with what it said.
    """
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, cwd=_ROOT, env=environment, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RemaskError(f"{' '.join(command[:3])} failed with status {done.returncode}:\n{done.stderr[-3000:]}")
    return done.stdout
