"""A TPU of other machines, as far as it goes without one: its API, its hosts, what they read, that they are missed."""

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest

from tests import processes
from tests.cloud import tpu_hosts
from tests.cloud.cloud import ACCOUNT, PROJECT
from tests.cloud.tpu_api import HOST, TpuApi
from trainer.config import TrainOptions
from trainer.run import checkpoint
from trainer.train import train

ROOT = Path(__file__).parents[2]
TPU_ACCOUNT = f"tpu@{PROJECT}.iam.gserviceaccount.com"


@pytest.mark.cloud
def test_a_run_on_other_machines_reads_there_misses_them_and_goes_on_elsewhere(
    cloud, tiny_data_set, tiny_shape, tmp_path
):
    for path in Path(tiny_data_set).iterdir():
        cloud.storage.put("bucket", f"records/{path.name}", path.read_bytes())
    options = TrainOptions(
        data="gs://bucket/records",
        run_dir="gs://bucket/run",
        model=tiny_shape,
        train_steps=16,
        global_batch_size=16,
        eval_every=8,
        checkpoint_every=4,
        steps_per_loop=2,
        learning_rate=1e-2,
        warmup_steps=4,
        shuffle_examples=60,
        dtype="float32",
        tpu="node-1",
        probes=("we saw the [MASK] again.",),
    )
    environment = cloud.applied()
    of_hosts = {**environment, "GOOGLE_APPLICATION_CREDENTIALS": cloud.credentials(TPU_ACCOUNT)}
    with tpu_hosts.running(2, of_hosts) as hosts:
        cloud.services[HOST] = TpuApi(cloud.account_of)
        cloud.services[HOST].put("node-1", hosts=tuple(host.address for host in hosts))
        arguments = {"options": asdict(options), "victim": hosts[1].process.pid}
        child = processes.run(
            [sys.executable, "-m", "tests.trainer.remote_training", json.dumps(arguments)],
            cwd=ROOT,
            env={**environment, "TF_CPP_MIN_LOG_LEVEL": "3"},
            capture_output=True,
            text=True,
            check=False,
        )
    assert child.returncode == 0, child.stderr
    assert "End of sequence" not in child.stderr  # which TensorFlow would say late, and beside the matter
    assert "Traceback" not in child.stderr
    said = {line[0]: line[2:] for line in child.stdout.splitlines() if line[:2] in ("1 ", "2 ", "3 ")}
    assert said["1"].startswith(
        f"TPU node-1: connected to its 2 hosts, {hosts[0].address}, {hosts[1].address}, but they cannot be used (TPUs "
        f"not found in the cluster). They must run the TensorFlow of this machine, "
    )
    assert said["2"].split() == [f"/job:worker/replica:0/task:{task}/device:CPU:0" for task in (0, 0, 1, 1)]
    assert said["3"].startswith("a host of TPU node-1 is gone (")
    assert "). The run is saved up to step 8; run the same command again to continue from there: " in said["3"]
    # TensorFlow's requests are those of the TPU's hosts, all others the coordinator's.
    readers = {each.account for each in cloud.log if unquote(each.path).startswith("/bucket/records/")}
    writers = {each.account for each in cloud.log if each.query.get("name", "").startswith("run/tensorboard")}
    assert (readers, writers) == ({TPU_ACCOUNT}, {TPU_ACCOUNT})
    assert {each.account for each in cloud.log if each.query.get("uploadType") == "multipart"} == {ACCOUNT}

    here = replace(options, tpu="", data=tiny_data_set)
    whole = replace(here, run_dir=str(tmp_path))
    assert train(here) == 0
    assert train(whole) == 0
    (ours, state), (theirs, expected) = (
        checkpoint.latest(f"{run.run_dir}/checkpoints", say=print) for run in (here, whole)
    )
    assert ours.step == theirs.step == 16
    for name, value in expected.items():
        np.testing.assert_allclose(state[name], value, rtol=0, atol=1e-6, err_msg=name)
