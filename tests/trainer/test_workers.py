"""Two real processes that train together, held against one."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from records.errors import RemaskError
from trainer import checkpoint
from trainer.workers import ALONE, Place, place

ROOT = Path(__file__).parents[2]


def free_ports(count):
    """Return ports that nobody listens at."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def started(number, addresses, arguments):
    """Start a worker, on a CPU."""
    config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": number}}
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    if addresses:
        environment["TF_CONFIG"] = json.dumps(config)
    command = [sys.executable, "-m", "trainer", "train", *arguments]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def trained(workers, arguments):
    """Train with so many workers to the end, and return what each printed."""
    addresses = [f"127.0.0.1:{port}" for port in free_ports(workers)] if workers > 1 else []
    processes = [started(number, addresses, arguments) for number in range(workers)]
    try:
        said = [process.communicate(timeout=300) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * workers, said
    return [out for out, _ in said]


def test_two_workers_train_as_one(tiny_data_set, tiny_shape, tmp_path):
    shared = f"--data {tiny_data_set} --model {tiny_shape} --train_steps 12 --warmup_steps 2 --dropout 0"
    shared += " --learning_rate 0.01 --global_batch_size 16 --eval_every 6 --checkpoint_every 6"
    one, two = tmp_path / "one", tmp_path / "two"
    probes = ["--probes", "we saw the [MASK] again."]
    trained(1, [*shared.split(), "--run_dir", str(one), *probes])
    said = trained(2, [*shared.split(), "--run_dir", str(two), *probes])
    assert "on 2 CPU" in said[0]
    assert said[1] == ""
    (lone, state), (both, states) = (checkpoint.latest(f"{run}/checkpoints", say=print) for run in (one, two))
    for each, other in zip(lone.evaluations, both.evaluations, strict=True):
        assert each.tokens == other.tokens
        assert abs(each.loss - other.loss) < 1e-5
    assert set(state) == set(states)
    for name in state:
        np.testing.assert_allclose(state[name], states[name], rtol=0, atol=1e-5, err_msg=name)
    assert (two / "export" / "README.md").exists()


def test_a_signal_to_one_worker_stops_both_and_they_continue(tiny_data_set, tiny_shape, tmp_path):
    run = tmp_path / "run"
    arguments = f"--data {tiny_data_set} --model {tiny_shape} --train_steps 100000 --warmup_steps 2 --dropout 0"
    arguments += f" --global_batch_size 16 --eval_every 100000 --checkpoint_every 100000 --run_dir {run}"
    argv = [*arguments.split(), "--probes", "we saw the [MASK] again."]
    for _ in range(2):
        addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]
        processes = [started(number, addresses, argv) for number in range(2)]
        try:
            for line in iter(processes[0].stderr.readline, ""):
                if line.startswith("step "):
                    break
            processes[1].send_signal(signal.SIGTERM)
            said = [process.communicate(timeout=120) for process in processes]
        finally:
            for process in processes:
                process.kill()
        assert [process.returncode for process in processes] == [128 + signal.SIGTERM] * 2, said
        found = checkpoint.latest(f"{run}/checkpoints", say=print)
        assert f"continue after step {found[0].step}" in said[0][0]
    assert len(checkpoint.paths(f"{run}/checkpoints")) == 2


def test_without_tf_config_there_is_one_worker():
    assert place({}) == place({"TF_CONFIG": '{"cluster": {"worker": ["a:1"]}}'}) == ALONE


def test_a_chief_is_the_first_of_all():
    cluster = {"chief": ["a:1"], "worker": ["b:1", "c:1"]}
    config = json.dumps({"cluster": cluster, "task": {"type": "chief", "index": 0}})
    assert place({"TF_CONFIG": config}) == Place(0, ("a:1", "b:1", "c:1"))


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("{", "TF_CONFIG: found {, expected the addresses of all workers, such as TF_CONFIG="),
        ('{"cluster": {"worker": ["a", "b"], "ps": ["c"]}, "task": {"type": "ps", "index": 0}}', "found a task ps"),
        ('{"cluster": {"worker": ["a", "b"]}, "task": {"type": "worker", "index": 2}}', "found worker 2 of 2"),
    ],
)
def test_a_tf_config_that_means_nothing_is_refused(config, said):
    with pytest.raises(RemaskError) as refused:
        place({"TF_CONFIG": config})
    assert said in str(refused.value)
