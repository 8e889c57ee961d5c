"""What a bare machine with a GPU needs beside this checkout, made where there is a network: `make bench-gpu-carry`."""

import os

from benchmarks import gpu_batches, gpu_wheels
from benchmarks.config import GPU_WHEELS, GpuCarryOptions


def main(options: GpuCarryOptions) -> None:
    """Fetch the wheels and make the batches."""
    gpu_wheels.download(os.path.join(options.out, os.path.basename(GPU_WHEELS)), python=options.python)
    gpu_batches.make(options)
    print(f"carry {options.out} along with the checkout, and run there: python3 -m benchmarks gpu")
