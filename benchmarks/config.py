"""The options of the benchmarks. Only the standard library: help is instant."""

import math
import re
from dataclasses import dataclass

from records.console.command_line import option, require
from trainer.config import SCRATCH

GPU_LENGTHS = (128, 512)
GPU_CARRIED = "out/gpu"
GPU_BATCHES, GPU_WHEELS = f"{GPU_CARRIED}/batches.npz", f"{GPU_CARRIED}/wheels"
"""What is made beforehand and carried to a machine with a GPU, by default."""

GPU_CONTENDERS = ("ceiling", "remask", "masked", "masked-compiled", "everywhere", "everywhere-compiled")
"""The device's own speed, ours, and transformers' model: its head at masked places or everywhere, eager or compiled."""


@dataclass(frozen=True)
class RecordsBenchOptions:
    """Options of `python -m benchmarks records` and `cloud`.

    Raises:
        RemaskError: an option outside its range.
    """

    csv: str = option(
        "", "a CSV with a column text, such as the IMDB reviews; none: the embedded corpus", metavar="FILE"
    )
    tokenizer: str = option("", "folder or hub name of a tokenizer; none: one made from the embedded corpus")
    rounds: int = option(3, "how often each contender runs")

    def __post_init__(self) -> None:
        require(self.rounds >= 1, "rounds", self.rounds, "at least 1")


@dataclass(frozen=True)
class InputBenchOptions:
    """Options of `python -m benchmarks input`.

    Raises:
        RemaskError: an option outside its range.
    """

    data: str = option("", "folder of a data set of 128 tokens a sequence; none: it is made from csv", metavar="DIR")
    csv: str = option(
        "", "a CSV with a column text, such as the IMDB reviews; none: the embedded corpus", metavar="FILE"
    )
    tokenizer: str = option("", "folder or hub name of a tokenizer; none: one made from the embedded corpus")
    rounds: int = option(3, "how often each contender runs")

    def __post_init__(self) -> None:
        require(self.rounds >= 1, "rounds", self.rounds, "at least 1")


@dataclass(frozen=True)
class StepBenchOptions:
    """Options of `python -m benchmarks step`.

    Raises:
        RemaskError: an option outside its range.
    """

    steps: int = option(8, "steps of training in a run")
    rounds: int = option(3, "how often each contender runs")

    def __post_init__(self) -> None:
        require(self.steps >= 1, "steps", self.steps, "at least 1")
        require(self.rounds >= 1, "rounds", self.rounds, "at least 1")


@dataclass(frozen=True)
class GpuBenchOptions:
    """Options of `python -m benchmarks gpu`.

    Raises:
        RemaskError: an option outside its range.
    """

    model: str = option("base", "shape of the model", choices=tuple(SCRATCH))
    length: tuple[int, ...] = option(GPU_LENGTHS, "tokens a sequence")
    tokens: int = option(32_768, "tokens a step, padding included")
    contender: tuple[str, ...] = option(GPU_CONTENDERS, "who takes part", choices=GPU_CONTENDERS)
    batches: str = option(
        GPU_BATCHES, "what to train on; random: words at random, as where this file is missing", metavar="FILE|random"
    )
    wheels: str = option(GPU_WHEELS, "wheels of what the machine may lack", metavar="DIR")
    device: str = option("gpu", "where to run; on a cpu the figures are worth nothing", choices=("gpu", "cpu"))
    seconds: float = option(345.0, "of all together; what has not come by then is named")
    limit: float = option(150.0, "seconds of a contender at one length")
    figure_seconds: float = option(3.0, "seconds that are measured for one figure")
    peak_tflops: float = option(0.0, "what the device could do at most; 0: looked up by its name")
    commit: str = option("", "of the code, for the result; none: what git says")
    out: str = option("", "folder of gpu.json; none: benchmarks/results, on a cpu out/gpu", metavar="DIR")

    def __post_init__(self) -> None:
        for value in self.length:
            require(3 <= value <= 512, "length", value, "3 to 512")
        require(self.tokens >= 1, "tokens", self.tokens, "at least 1")
        for name in ("seconds", "limit", "figure_seconds"):
            value = getattr(self, name)
            require(0 < value < math.inf, name, value, "more than 0")
        require(0 <= self.peak_tflops < math.inf, "peak_tflops", self.peak_tflops, "0 or more")

    @property
    def folder(self) -> str:
        """The folder of the result; what a CPU gives does not get among the results by itself."""
        return self.out or ("benchmarks/results" if self.device == "gpu" else GPU_CARRIED)


@dataclass(frozen=True)
class GpuCarryOptions:
    """Options of `python -m benchmarks gpu-carry`.

    Raises:
        RemaskError: an option outside its range.
    """

    csv: str = option(
        "", "a CSV with a column text, such as the IMDB reviews; none: the embedded corpus", metavar="FILE"
    )
    tokenizer: str = option("", "folder or hub name of a tokenizer; none: that of 'python -m pipelines records'")
    length: tuple[int, ...] = option(GPU_LENGTHS, "tokens a sequence")
    tokens: int = option(131_072, "tokens of each kind of sequence, padding included")
    python: str = option("3.12", "version of Python on the other machine, for which the wheels are", metavar="3.N")
    out: str = option(GPU_CARRIED, "folder to write", metavar="DIR")

    def __post_init__(self) -> None:
        for value in self.length:
            require(8 <= value <= 512, "length", value, "8 to 512")
        require(self.tokens >= 1, "tokens", self.tokens, "at least 1")
        require(bool(re.fullmatch(r"3\.\d+", self.python)), "python", self.python, "3.N, such as 3.12")


@dataclass(frozen=True)
class TpuOptions:
    """Options of `python -m benchmarks tpu`.

    Raises:
        RemaskError: an option outside its range.
    """

    model: str = option("base", f"one of {', '.join(SCRATCH)}, or a folder with a config.json", metavar="NAME|DIR")
    topology: str = option("v5e:1x1", "kind of TPU, and chips")
    batch: int = option(64, "sequences a step on a chip")
    length: int = option(128, "tokens a sequence")
    compiler: str = option(".venv-tpu/bin/python", "Python with what benchmarks/tpu.txt names", metavar="FILE")

    def __post_init__(self) -> None:
        require(self.batch >= 1, "batch", self.batch, "at least 1")
        require(3 <= self.length <= 512, "length", self.length, "3 to 512")


@dataclass(frozen=True)
class ReportOptions:
    """Options of `python -m benchmarks report`."""

    results: str = option("benchmarks/results", "folder of the results", metavar="DIR")
    readme: str = option("README.md", "file into which the table is written", metavar="FILE")
