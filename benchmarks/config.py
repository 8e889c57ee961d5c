"""The options of the benchmarks. Only the standard library: help is instant."""

from dataclasses import dataclass

from records.command_line import option, require
from trainer.config import DTYPES, SCRATCH


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
class StepGpuBenchOptions:
    """Options of `python -m benchmarks step-gpu`.

    Raises:
        RemaskError: an option outside its range.
    """

    model: str = option("base", "shape of the model", choices=tuple(SCRATCH))
    length: tuple[int, ...] = option((128, 512), "tokens a sequence")
    batch: tuple[int, ...] = option((), "sequences a step; none: what makes 8,192, 32,768 and 65,536 tokens")
    steps: int = option(20, "steps that are timed, after the first three")
    dtype: str = option("mixed_bfloat16", "arithmetic", choices=DTYPES)
    peak_tflops: float = option(0.0, "what the device could do at most; 0: looked up by its name")

    def __post_init__(self) -> None:
        for name in ("length", "batch"):
            for value in getattr(self, name):
                require(value >= 1, name, value, "at least 1")
        for value in self.length:
            require(3 <= value <= 512, "length", value, "3 to 512")
        require(self.steps >= 1, "steps", self.steps, "at least 1")
        require(self.peak_tflops >= 0, "peak_tflops", self.peak_tflops, "0 or more")


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
