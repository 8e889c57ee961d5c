"""What a benchmark on a GPU has found: its file, its lines as they are printed, its table in README.md."""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

from benchmarks.contest import Machine
from benchmarks.figures import short
from benchmarks.flops import train_flops
from trainer.config import ModelConfig

FILE = "gpu.json"
OURS = "remask"

PEAKS = {
    r"H[12]00.*NVL": 835e12,
    r"H100.*PCIe": 756e12,
    r"H200|H100|GH200": 989e12,
    r"A100\b": 312e12,
    r"L4\b": 121e12,
}
"""Dense bfloat16 FLOP/s by the name that a device goes by, from NVIDIA's data sheets (half of what they give "with
sparsity"). The first name that fits counts."""


@dataclass(frozen=True)
class Window:
    """Steps that were timed together."""

    steps: int
    sequences: int
    tokens: int  # that are no padding
    seconds: float


@dataclass(frozen=True)
class Figure:
    """What one contender does with one kind of sequences."""

    contender: str
    length: int
    rows: str
    windows: tuple[Window, ...]
    first_step_seconds: float  # in which it compiles
    first_loss: float
    loss: float
    peak_bytes: int  # of the device, by the framework's own account; on a CPU those of the process

    def rates(self, of: str = "sequences") -> list[float]:
        """Return sequences, steps or real tokens a second, in each window."""
        return [getattr(window, of) / window.seconds for window in self.windows]

    def rate(self, of: str = "sequences") -> float:
        """Return the median of `rates`."""
        return median(self.rates(of))


@dataclass(frozen=True)
class Absent:
    """A figure that was to come and did not."""

    contender: str
    length: int
    rows: str
    reason: str


@dataclass(frozen=True)
class GpuResult:
    """All figures of one run on one device."""

    text: str  # what was trained on
    synthetic: bool
    model: str
    shape: ModelConfig
    tokens: int  # a step, padding included
    machine: Machine
    date: str
    commit: str
    card: str = ""  # and its driver
    device: str = ""  # the name that PyTorch and JAX give it
    peak_flops: float = 0.0  # of the device, by its data sheet; 0: not known
    ceiling_flops: float = 0.0  # that a product of large matrices reached; 0: not measured
    seconds: float = 0.0  # of the whole run so far
    versions: Mapping[str, str] = field(default_factory=dict)
    figures: tuple[Figure, ...] = ()
    absent: tuple[Absent, ...] = ()

    def mfu(self, figure: Figure) -> float:
        """Return the share of the device's peak that is work of the model; 0 where the peak is not known.

        The work is the same for all contenders, that of a head at the masked places: `benchmarks.flops`.
        """
        predictions = -(-15 * figure.length // 100)
        flops = train_flops(self.shape, length=figure.length, predictions=predictions)
        return figure.rate() * flops / self.peak_flops if self.peak_flops else 0.0

    def ours(self, figure: Figure) -> Figure | None:
        """Return our figure for the same sequences."""
        same = (one for one in self.figures if (one.length, one.rows) == (figure.length, figure.rows))
        return next((one for one in same if one.contender == OURS), None)

    def headlines(self) -> dict[str, float]:
        """Return what it comes down to, as far as it has come: at the first length, beside the best of the others."""
        found: dict[str, float] = {}
        for rows in dict.fromkeys(figure.rows for figure in self.figures):
            figures = [one for one in self.figures if (one.length, one.rows) == (self.figures[0].length, rows)]
            ours = next((figure for figure in figures if figure.contender == OURS), None)
            others = [figure.rate() for figure in figures if figure.contender != OURS]
            if ours and self.peak_flops:
                found[f"gpu_{rows}_step_mfu"] = self.mfu(ours)
            if ours and others:
                found[f"gpu_{rows}_step_vs_peer"] = ours.rate() / max(others)
        return found

    def write(self, folder: str) -> None:
        """Write the file, whole or not at all."""
        path = Path(folder) / FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        content = asdict(_File("gpu", self, self.headlines()))
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(content, indent=1) + "\n")
        os.replace(partial, path)


@dataclass(frozen=True)
class _File:
    benchmark: str
    result: GpuResult
    headlines: Mapping[str, float]


def peak(device: str) -> float:
    """Return the most dense bfloat16 FLOP/s of a device, 0 where it is not known.

    >>> [peak(f"NVIDIA {name}") / 1e12 for name in ("H200", "H100 NVL", "H100 PCIe", "RTX A1000")]
    [989.0, 835.0, 756.0, 0.0]
    """
    return next((flops for name, flops in PEAKS.items() if re.search(name, device)), 0.0)


def read(path: Path) -> GpuResult:
    """Return the result of a file.

    Raises:
        RemaskError: it is another file, or damaged.
    """
    from records import typed_json  # wants packages that a bare machine has not

    advice = "make it anew with 'make bench-gpu', or delete it"
    return typed_json.read(_File, path.read_bytes(), name=str(path), advice=advice).result


HEAD = (
    f"{'length':>6}  {'rows':<6}  {'':<37}  {'ms a step':>9}  {'sequences/s':>11}  {'tokens/s':>9}  {'MFU':>6}  "
    f"{'peak GB':>7}  {'1st step s':>10}  {'remask/it':>9}"
)
"""Stands above what `line` returns."""


def line(result: GpuResult, figure: Figure) -> str:
    """Return a figure as it is printed."""
    ours, mfu = result.ours(figure), result.mfu(figure)
    return (
        f"{figure.length:>6}  {figure.rows:<6}  {figure.contender:<37}  {1e3 / figure.rate('steps'):>9.1f}  "
        f"{figure.rate():>11,.1f}  {figure.rate('tokens'):>9,.0f}  {f'{mfu:.1%}' if mfu else '-':>6}  "
        f"{figure.peak_bytes / 1e9:>7.2f}  {figure.first_step_seconds:>10.1f}  "
        f"{f'{ours.rate() / figure.rate():.2f}' if ours else '-':>9}"
    )


def section(result: GpuResult) -> list[str]:
    """Return the lines that stand in README: where it was measured, the table, and what is missing from it."""
    device = result.card or result.device
    absent = [f"{one.contender}, {one.length} {one.rows}: {one.reason}" for one in result.absent]
    versions = ", ".join(f"{name} {version}" for name, version in sorted(result.versions.items()))
    ceiling = f"; a product of large matrices reaches {result.ceiling_flops / 1e12:,.3g}" * bool(result.ceiling_flops)
    peak = f"MFU of {result.peak_flops / 1e12:,.0f} TFLOP/s{ceiling}. " if result.peak_flops else ""
    return [
        f"Steps of {result.tokens:,} tokens of BERT-{result.model} on one {device}, bfloat16, of {result.text}:",
        "",
        "| sequences | | sequences/s | real tokens/s | MFU | memory | remask / it |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        *(_row(result, figure) for figure in result.figures),
        "",
        f"Medians of windows, in brackets their spread. {peak}Packed texts see each other in transformers' model, not "
        f"in ours. {result.date}, {versions}, at commit {result.commit or 'unknown'}.",
        *([f"Missing: {'; '.join(absent)}."] if absent else []),
    ]


def _row(result: GpuResult, figure: Figure) -> str:
    rates, ours, mfu = figure.rates(), result.ours(figure), result.mfu(figure)
    return (
        f"| {figure.length}, {figure.rows} | {figure.contender} | {short(figure.rate())} "
        f"({short(min(rates))} to {short(max(rates))}) | {short(figure.rate('tokens'))} | "
        f"{f'{mfu:.1%}' if mfu else 'unknown'} | {figure.peak_bytes / 1e9:.1f} GB | "
        f"{f'{ours.rate() / figure.rate():.2f}' if ours else '-'} |"
    )
