"""The hosts of a TPU, without one: TensorFlow's own servers, each a process of its own on loopback, with a CPU.

`python -m tests.cloud.tpu_hosts NUMBER ADDRESS...` is one of them, for an hour unless it is killed.
"""

import contextlib
import functools
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from tests import ports, processes

_ROOT = Path(__file__).parents[2]
_SECONDS = 3600


class Host(NamedTuple):
    """A host that runs."""

    address: str
    process: subprocess.Popen[bytes]


@contextlib.contextmanager
def running(number: int, environment: Mapping[str, str]) -> Iterator[list[Host]]:
    """Run some hosts while the block runs."""
    addresses = [f"127.0.0.1:{port}" for port in ports.free(number)]
    quiet = {**environment, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    with contextlib.ExitStack() as stack:
        hosts = []
        for task, address in enumerate(addresses):
            command = [sys.executable, "-m", "tests.cloud.tpu_hosts", str(task), *addresses]
            hosts.append(Host(address, stack.enter_context(processes.started(command, cwd=_ROOT, env=quiet))))
        for host in hosts:
            processes.wait_for(functools.partial(_takes_connections, host.address), host.process)
        yield hosts


def _takes_connections(address: str) -> bool:
    host, _, port = address.partition(":")
    with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=processes.LIMIT):
        return True
    return False


def main(number: str, *addresses: str) -> None:
    """Be a host."""
    import tensorflow as tf

    cluster = tf.train.ClusterSpec({"worker": list(addresses)})
    server = tf.distribute.Server(cluster, job_name="worker", task_index=int(number), protocol="grpc")
    time.sleep(_SECONDS)
    del server  # until here


if __name__ == "__main__":
    main(*sys.argv[1:])
