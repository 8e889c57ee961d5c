"""The command line of the benchmarks: it parses, and calls."""

import sys

from benchmarks.config import (
    GpuBenchOptions,
    GpuCarryOptions,
    InputBenchOptions,
    RecordsBenchOptions,
    ReportOptions,
    StepBenchOptions,
    TpuOptions,
)
from records.console.command_line import Command, main

COMMANDS = {
    "records": Command(RecordsBenchOptions, "benchmarks.records:main", "text into records, beside HuggingFace's way"),
    "input": Command(InputBenchOptions, "benchmarks.input:main", "records into masked batches, beside the peers' ways"),
    "cloud": Command(RecordsBenchOptions, "benchmarks.cloud:main", "records in a bucket, beside those on the disk"),
    "step": Command(StepBenchOptions, "benchmarks.step:main", "steps of training, beside transformers and KerasHub"),
    "gpu": Command(GpuBenchOptions, "benchmarks.gpu:main", "steps of training on one GPU, beside transformers"),
    "gpu-carry": Command(GpuCarryOptions, "benchmarks.gpu_carry:main", "what a bare machine needs for 'gpu'"),
    "tpu": Command(TpuOptions, "benchmarks.tpu:main", "compile the step for a TPU, without one"),
    "report": Command(ReportOptions, "benchmarks.report:main", "draw the results, and put them into README.md"),
}

if __name__ == "__main__":
    sys.exit(main("python -m benchmarks", "Measure remask beside its peers.", COMMANDS))
