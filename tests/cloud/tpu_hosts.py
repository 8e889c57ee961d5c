"""The hosts of a TPU, without one: TensorFlow's own servers, each a process of its own on loopback, with a CPU.

`python -m tests.cloud.tpu_hosts NUMBER ADDRESS...` is one of them, until it is killed.
"""

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

_ROOT = Path(__file__).parents[2]
_SECONDS = 60  # in which a host must have started


class Host(NamedTuple):
    """A host that runs."""

    address: str
    process: subprocess.Popen[bytes]


@contextlib.contextmanager
def running(number: int, environment: Mapping[str, str]) -> Iterator[list[Host]]:
    """Run some hosts while the block runs."""
    free = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in free]
    for each in free:
        each.close()
    command = [sys.executable, "-m", "tests.cloud.tpu_hosts"]
    quiet = {**environment, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    hosts = [
        Host(address, subprocess.Popen([*command, str(each), *addresses], cwd=_ROOT, env=quiet))
        for each, address in enumerate(addresses)
    ]
    try:
        for host in hosts:
            _wait_for(host)
        yield hosts
    finally:
        for host in hosts:
            host.process.kill()
            host.process.wait()


def _wait_for(host: Host) -> None:
    address, _, port = host.address.partition(":")
    deadline = time.monotonic() + _SECONDS
    while True:
        assert host.process.poll() is None, "a host has ended"
        with contextlib.suppress(OSError):
            socket.create_connection((address, int(port))).close()
            return
        assert time.monotonic() < deadline, "a host takes no connections"
        time.sleep(0.05)


def main(number: str, *addresses: str) -> None:
    """Be a host."""
    import tensorflow as tf

    cluster = tf.train.ClusterSpec({"worker": list(addresses)})
    tf.distribute.Server(cluster, job_name="worker", task_index=int(number), protocol="grpc").join()


if __name__ == "__main__":
    main(*sys.argv[1:])
