"""The command line of the benchmarks: it parses, and calls."""

import sys

from benchmarks.config import (
    InputBenchOptions,
    RecordsBenchOptions,
    ReportOptions,
    StepBenchOptions,
    StepGpuBenchOptions,
    TpuOptions,
)
from records.command_line import Command, main

COMMANDS = {
    "records": Command(RecordsBenchOptions, "benchmarks.records:main", "text into records, beside HuggingFace's way"),
    "input": Command(InputBenchOptions, "benchmarks.input:main", "records into masked batches, beside the peers' ways"),
    "cloud": Command(RecordsBenchOptions, "benchmarks.cloud:main", "records in a bucket, beside those on the disk"),
    "step": Command(StepBenchOptions, "benchmarks.step:main", "steps of training, beside transformers and KerasHub"),
    "step-gpu": Command(StepGpuBenchOptions, "benchmarks.step_gpu:main", "steps of training on one GPU, by way of JAX"),
    "tpu": Command(TpuOptions, "benchmarks.tpu:main", "compile the step for a TPU, without one"),
    "report": Command(ReportOptions, "benchmarks.report:main", "draw the results, and put them into README.md"),
}

if __name__ == "__main__":
    sys.exit(main("python -m benchmarks", "Measure remask beside its peers.", COMMANDS))
