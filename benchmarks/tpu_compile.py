"""Compiles a program for a TPU, without one: `.venv-tpu/bin/python benchmarks/tpu_compile.py HLO TOPOLOGY TEXT`.

Prints what the compiler says of it as a line of JSON, or an object with `error`, and writes the optimised program as
text. It needs only `benchmarks/tpu.txt`: libtpu compiles on any machine, and jaxlib has the functions that hand it a
program which JAX did not make. They are not public, hence the exact versions.
"""

import json
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

DEVICE_RNG = (
    r"(%[\w#]+), (%[\w#]+) = stablehlo\.rng_bit_generator (%[\w#]+), algorithm =\s+PHILOX : "
    r"\(tensor<3xui64>\) -> \(tensor<3xui64>, (tensor<[^>]*>)\)"
)


def main(program: str, topology: str, text: str) -> None:
    """Compile the program for all chips of the topology, of which each has a replica."""
    os.environ.update(
        TPU_SKIP_MDS_QUERY="1",
        JAX_PLATFORMS="cpu",
        ALLOW_MULTIPLE_LIBTPU_LOAD="1",
        TPU_WORKER_HOSTNAMES="localhost",
        TPU_ACCELERATOR_TYPE="v5litepod-4",
    )
    try:
        print(json.dumps(compiled(Path(program).read_bytes(), topology, text)))
    except Exception as error:  # the compiler raises what it likes, and its words are all there is to say
        print(json.dumps({"error": str(error)}))


def compiled(program: bytes, topology: str, text: str) -> dict[str, Any]:
    """Return what there is to know of the compiled program."""
    import numpy as np
    from jax._src.interpreters import mlir
    from jax._src.lib import _jax, xla_client
    from jax._src.lib.mlir import ir
    from jax.experimental import topologies

    devices = tuple(topologies.get_topology_desc(platform="tpu", topology_name=topology).devices)
    module = _jax.mlir.xla_computation_to_mlir_module(xla_client.XlaComputation(program))
    source = rewritten(module if isinstance(module, str) else module.decode())
    options = xla_client.CompileOptions()
    build = options.executable_build_options
    options.num_replicas = build.num_replicas = len(devices)
    places = np.array([[device.id] for device in devices])
    options.device_assignment = build.device_assignment = xla_client.DeviceAssignment.create(places)
    began = time.monotonic()
    with mlir.make_ir_context():
        made = devices[0].client.compile(ir.Module.parse(source), _jax.DeviceList(devices), options)
    Path(text).write_text(made.hlo_modules()[0].to_string())
    memory = made.get_compiled_memory_stats()
    return {
        "chip": devices[0].device_kind,
        "replicas": len(devices),
        "seconds": time.monotonic() - began,
        "arguments": memory.argument_size_in_bytes,
        "outputs": memory.output_size_in_bytes,
        "aliased": memory.alias_size_in_bytes,
        "temporary": memory.temp_size_in_bytes,
        "code": memory.generated_code_size_in_bytes,
    }


def rewritten(module: str) -> str:
    """Return a program that the TPU's compiler takes, from one that TensorFlow made for a CPU.

    A copy within the program has no counterpart in StableHLO. And random bits are Philox's, which TensorFlow asks for
    on CPUs and GPUs; on a TPU it asks for the TPU's own generator, whose state is a word shorter.

    >>> rewritten("%3 = mhlo.copy %2 : tensor<4xf32>")
    '%3 = stablehlo.reshape %2 : (tensor<4xf32>) -> tensor<4xf32>'
    """
    module = re.sub(r"mhlo\.copy (%[\w#]+) : (tensor<[^>]*>)", r"stablehlo.reshape \1 : (\2) -> \2", module)
    return re.sub(
        DEVICE_RNG,
        r"\1k = stablehlo.slice \3 [0:2] : (tensor<3xui64>) -> tensor<2xui64>\n"
        r"\1c = stablehlo.slice \3 [2:3] : (tensor<3xui64>) -> tensor<1xui64>\n"
        r"\1n, \2 = stablehlo.rng_bit_generator \1k, algorithm = DEFAULT : "
        r"(tensor<2xui64>) -> (tensor<2xui64>, \4)\n"
        r"\1 = stablehlo.concatenate \1n, \1c, dim = 0 : (tensor<2xui64>, tensor<1xui64>) -> tensor<3xui64>",
        module,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
