"""Steps of training on one GPU, beside transformers' model in PyTorch: `make bench-gpu`.

Made for a bare machine: it needs Python, JAX, PyTorch and transformers, and neither TensorFlow nor a network. What such
a machine lacks is made beforehand by `make bench-gpu-carry` and carried along in `out/gpu`. Each contender runs in a
process of its own, one at a time (`benchmarks.turns`); a figure is printed and written down as soon as it is known, and
after the seconds given it is over, come what may.
"""

import contextlib
import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from benchmarks import gpu_batches, gpu_result, gpu_wheels
from benchmarks.config import GPU_BATCHES, GpuBenchOptions
from benchmarks.contest import Machine, commit, machine
from benchmarks.flops import FORMULA
from benchmarks.gpu_result import Absent, Figure, GpuResult, Window
from benchmarks.turns import Entrant, Found, Missing, in_turn
from records.errors import RemaskError
from trainer.config import SCRATCH, ModelConfig

ROWS = tuple(gpu_batches.LONG_TEXT)
LOG = "gpu.log"
CEILING_SIZE = {"gpu": 8192, "cpu": 512}
"""Rows and columns of the matrices by which the device's own speed is measured."""


class Contender(NamedTuple):
    """Who takes part, by what name."""

    name: str
    entry: str
    arguments: Mapping[str, Any] = {}


TRANSFORMERS = "benchmarks.gpu_torch:transformers"
CONTENDERS = {
    "remask": Contender(gpu_result.OURS, "benchmarks.gpu_jax:remask"),
    "masked": Contender("transformers, masked places", TRANSFORMERS, {"everywhere": False, "compiled": False}),
    "masked-compiled": Contender(
        "transformers, masked places, compiled", TRANSFORMERS, {"everywhere": False, "compiled": True}
    ),
    "everywhere": Contender("transformers", TRANSFORMERS, {"everywhere": True, "compiled": False}),
    "everywhere-compiled": Contender("transformers, compiled", TRANSFORMERS, {"everywhere": True, "compiled": True}),
}
"""By their word on the command line, in the order of their turns. As it is, the model scores every position."""

CEILING = Contender("a product of large matrices", "benchmarks.gpu_torch:ceiling")


def main(options: GpuBenchOptions) -> None:
    """Measure, print and write down.

    Raises:
        RemaskError: no figure came at all; there are no such batches.
    """
    run(options, CONTENDERS, CEILING)


def run(options: GpuBenchOptions, contenders: Mapping[str, Contender], ceiling: Contender) -> GpuResult:
    """Let contenders take their turns, and return what came of it, which is in the folder of the result as well.

    Args:
        options: of the command.
        contenders: by the words of the option `contender`.
        ceiling: who measures what the device can do at best.
    """
    began, batches = time.monotonic(), options.batches
    if batches == "random" or (batches == GPU_BATCHES and not os.path.exists(batches)):
        batches = ""
    about = gpu_batches.describe(batches)
    shape = ModelConfig(
        **{**SCRATCH[options.model], "vocab_size": about.vocab_size, "cls_token_id": about.cls_token_id}
    )
    result = GpuResult(
        text=about.text,
        synthetic=about.synthetic,
        model=options.model,
        shape=shape,
        tokens=options.tokens,
        machine=Machine(**machine()),
        date=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        commit=options.commit or commit(),
        card=card() if options.device == "gpu" else "",
    )
    entrants = _entrants(options, shape, os.path.abspath(batches) if batches else "", contenders, ceiling)
    print(f"{result.card or options.device}; {result.machine.processor}, {result.machine.cores} cores")
    print(
        f"BERT {options.model}, steps of {options.tokens:,} tokens, of {about.text}; "
        f"commit {result.commit or 'unknown'}"
    )
    print(f"MFU: {FORMULA}, the head at masked places for all")
    print(gpu_result.HEAD, flush=True)
    log = Path(options.folder) / LOG
    log.unlink(missing_ok=True)
    with (
        _terminated(),
        _environment(options) as environment,
        contextlib.closing(
            in_turn(entrants, seconds=options.seconds, limit=options.limit, environment=environment)
        ) as turns,
    ):
        for entrant, found in turns:
            if isinstance(found, Missing):
                result, lines = _absent(result, entrant, found.reason)
                _write_down(log, entrant, found)
            else:
                result, lines = _added(result, options, entrant, found)
            result = dataclasses.replace(result, seconds=time.monotonic() - began)
            result.write(options.folder)
            print(*lines, sep="\n", flush=True)
    _finish(result, options, log)
    return result


def card() -> str:
    """Return the name of the first GPU, and its driver, as NVIDIA's own tool gives them; nothing where it is not."""
    if not shutil.which("nvidia-smi"):
        return ""
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        said = subprocess.run(query, check=False, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):  # JAX and PyTorch will say what is wrong
        return ""
    name, _, driver = (said.stdout.splitlines() or [""])[0].partition(", ")
    return f"{name} (driver {driver})" if driver and not said.returncode else ""


def _entrants(
    options: GpuBenchOptions,
    shape: ModelConfig,
    batches: str,
    contenders: Mapping[str, Contender],
    ceiling: Contender,
) -> list[Entrant]:
    """Return who takes part at which length: the shorter for all first, so that a run cut short is whole for one."""
    measured = {"device": options.device, "seconds": options.figure_seconds}
    entrants = []
    if "ceiling" in options.contender:
        arguments = {**ceiling.arguments, **measured, "size": CEILING_SIZE[options.device]}
        entrants.append(Entrant(ceiling.name, ceiling.entry, arguments))
    for length in options.length:
        common = {
            **measured,
            "config": dataclasses.asdict(shape),
            "batches": batches,
            "length": length,
            "rows": ROWS,
            "sequences": max(1, options.tokens // length),
        }
        entrants += [
            Entrant(contender.name, contender.entry, {**common, **contender.arguments})
            for word, contender in contenders.items()
            if word in options.contender
        ]
    return entrants


def _added(result: GpuResult, options: GpuBenchOptions, entrant: Entrant, found: Found) -> tuple[GpuResult, list[str]]:
    """Return the result with a figure in it, and what to print of that."""
    device, versions = found.pop("device"), {**result.versions, **found.pop("versions")}
    highest = options.peak_tflops * 1e12 or gpu_result.peak(device)
    result = dataclasses.replace(result, device=device, versions=versions, peak_flops=highest)
    if "flops" in found:
        result = dataclasses.replace(result, ceiling_flops=found["flops"])
        share = f", {found['flops'] / highest:.0%} of its data sheet" if highest else ""
        return result, [f"{entrant.name}, {found['size']} a side: {found['flops'] / 1e12:,.3g} TFLOP/s{share}"]
    windows = tuple(Window(**window) for window in found.pop("windows"))
    figure = Figure(contender=entrant.name, length=entrant.arguments["length"], windows=windows, **found)
    result = dataclasses.replace(result, figures=(*result.figures, figure))
    return result, [gpu_result.line(result, figure)]


def _absent(result: GpuResult, entrant: Entrant, reason: str) -> tuple[GpuResult, list[str]]:
    """Return the result with what an entrant has not given, and what to print of that."""
    if "length" not in entrant.arguments:
        return result, [f"{entrant.name}: {reason}"]
    length = entrant.arguments["length"]
    given = {one.rows for one in result.figures if (one.contender, one.length) == (entrant.name, length)}
    absent = [Absent(entrant.name, length, rows, reason) for rows in entrant.arguments["rows"] if rows not in given]
    lines = [f"{length:>6}  {one.rows:<6}  {one.contender:<37}  {one.reason}" for one in absent]
    return dataclasses.replace(result, absent=(*result.absent, *absent)), lines


def _write_down(log: Path, entrant: Entrant, missing: Missing) -> None:
    """Keep what an entrant said on its standard error."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as file:
        file.write(f"== {entrant.name}, {entrant.arguments.get('length', '')}: {missing.reason}\n{missing.said}\n")


def _finish(result: GpuResult, options: GpuBenchOptions, log: Path) -> None:
    took = f"{result.seconds:.0f} s"
    if result.synthetic:
        print(f"the batches were not of real text: {result.text}")
    if log.exists():
        print(f"what those said that gave no figure is in {log}")
    if not result.figures and (result.absent or not result.ceiling_flops):
        raise RemaskError(f"no figure came, in {took}: {_first_reason(result)}; see {log}")
    print(f"made {Path(options.folder) / gpu_result.FILE} in {took}; 'make bench-report' puts it into README.md")
    for name, value in result.headlines().items():
        print(f"headline {name} {value:.4g}")


def _first_reason(result: GpuResult) -> str:
    return result.absent[0].reason if result.absent else "the device's own speed could not be measured"


@contextlib.contextmanager
def _environment(options: GpuBenchOptions) -> Iterator[dict[str, str]]:
    """Yield variables for the contenders; caches and what was carried along lie in a folder that is then deleted."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        site = os.path.join(scratch, "site")
        if unpacked := gpu_wheels.unpack(options.wheels, site):
            print(f"carried along, and not on this machine: {', '.join(unpacked)}", file=sys.stderr)
        path = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), site if unpacked else "")))
        chosen = {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": "-1"} if options.device == "cpu" else {}
        yield {
            **chosen,
            **({"PYTHONPATH": path} if path else {}),
            "PYTHONUNBUFFERED": "1",
            "TORCHINDUCTOR_CACHE_DIR": os.path.join(scratch, "inductor"),
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # or its memory would be three quarters of the device's
        }


@contextlib.contextmanager
def _terminated() -> Iterator[None]:
    """Let SIGTERM end this as an exception does, by way of what is to be done at the end."""

    def end(number: int, frame: object) -> NoReturn:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
