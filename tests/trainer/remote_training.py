"""Trains on other machines, in a process of its own: `python -m tests.trainer.remote_training ARGUMENTS`, as JSON.

Whoever has once connected to a cluster cannot leave it again.
"""

import functools
import json
import os
import signal
import sys
from typing import Any

import numpy as np
import tensorflow as tf

from records.errors import RemaskError
from records.format.reader import open_data_set
from tests.trainer import tpu
from trainer.config import TrainOptions
from trainer.engines.accelerator import choose_strategy
from trainer.input.data import Share, dealt, train_batches
from trainer.input.masking import Masking
from trainer.train import train


def main(options: dict[str, Any], *, victim: int) -> None:
    """Look for the TPU, connect to its hosts, read there, and train there until one of them is killed."""
    asked = TrainOptions(**{**options, "probes": tuple(options["probes"])})
    try:
        choose_strategy(tpu=asked.tpu)
    except RemaskError as error:
        print("1", error)
    print("2", *hosts_that_read(asked.data))

    def kill(session, steps):
        if session.step == 10:
            os.kill(victim, signal.SIGKILL)

    far = tf.distribute.OneDeviceStrategy("/job:worker/replica:0/task:1/device:CPU:0")
    try:
        train(asked, strategy=far, on_steps=kill)
    except RemaskError as error:
        print("3", error)


def hosts_that_read(folder: str) -> list[str]:
    """Return which hosts hold the parts of batches that a TPUStrategy of two hosts gives each of its four replicas.

    Each must be what this process reads. Only the last way, from a host to its own TPUs, there is not.
    """
    data_set, strategy = open_data_set(folder), tpu.made_up(hosts=2, replicas=2)
    batches = functools.partial(
        train_batches,
        data_set,
        global_batch_size=16,
        start_step=3,
        train_steps=6,
        seed=0,
        masking=Masking(),
        shuffle_examples=60,
    )
    on_hosts = tf.distribute.InputOptions(experimental_fetch_to_device=False)
    deal = strategy.distribute_datasets_from_function
    strategy.distribute_datasets_from_function = functools.partial(deal, options=on_hosts)
    whole, parted, devices = (
        iter(batches(share=Share())),
        iter(dealt(strategy, lambda share: batches(share=share))),
        set(),
    )
    for _ in range(3):
        batch = next(parted)
        for name, values in next(whole).items():
            parts = strategy.experimental_local_results(batch[name])
            np.testing.assert_array_equal(np.concatenate([part.numpy() for part in parts]), values)
            devices |= {(number, part.backing_device) for number, part in enumerate(parts)}
    return [device for _, device in sorted(devices)]


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
