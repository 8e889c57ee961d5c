"""Several processes that train together, one on each machine, as the variable TF_CONFIG describes them to each.

The first of them is the chief: it alone writes and speaks. The others compute the same and follow. What only one of
them can know, such as a signal or how long a step took, all hear of before anything is decided by it.
"""

import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from records.errors import RemaskError

_JOBS = ("chief", "worker")
_HOW = (
    'such as TF_CONFIG=\'{"cluster": {"worker": ["10.0.0.2:2222", "10.0.0.3:2222"]}, "task": {"type": "worker", '
    '"index": 0}}\', with another index for each'
)


@dataclass(frozen=True)
class Place:
    """Which of several workers this process is."""

    number: int = 0
    addresses: tuple[str, ...] = ("",)  # of all workers

    @property
    def leads(self) -> bool:
        """Whether it is the chief."""
        return self.number == 0

    @property
    def alone(self) -> bool:
        """Whether there are no others."""
        return len(self.addresses) == 1


ALONE = Place()


def place(environment: Mapping[str, str] = os.environ) -> Place:
    """Return this process's place among the workers that TF_CONFIG names; without one it is alone.

    >>> cluster = '{"worker": ["a:1", "b:1", "c:1"]}'
    >>> place({"TF_CONFIG": f'{{"cluster": {cluster}, "task": {{"type": "worker", "index": 2}}}}'})
    Place(number=2, addresses=('a:1', 'b:1', 'c:1'))

    Raises:
        RemaskError: it is not as TensorFlow has it, or names tasks other than `chief` and `worker`.
    """
    text = environment.get("TF_CONFIG", "")
    if not text:
        return ALONE
    try:
        config = json.loads(text)
        cluster = {job: list(map(str, addresses)) for job, addresses in config.get("cluster", {}).items()}
        if sum(map(len, cluster.values())) <= 1:
            return ALONE
        job, index = config["task"]["type"], int(config["task"]["index"])
    except (ValueError, KeyError, TypeError, AttributeError):
        raise RemaskError(f"TF_CONFIG: found {text}, expected the addresses of all workers, {_HOW}") from None
    if strange := sorted({job, *cluster} - {*_JOBS}):
        raise RemaskError(f"TF_CONFIG: found a task {strange[0]}, expected chief and worker alone, {_HOW}")
    if not 0 <= index < len(cluster.get(job, ())):
        raise RemaskError(f"TF_CONFIG: found {job} {index} of {len(cluster.get(job, ()))}, counted from 0, {_HOW}")
    before = len(cluster.get("chief", ())) if job == "worker" else 0
    return Place(before + index, tuple(address for name in _JOBS for address in cluster.get(name, ())))


class Workers:
    """What the workers tell each other. Each must ask the same, in the same order.

    Args:
        strategy: of the training, a `MultiWorkerMirroredStrategy` where there are several workers.
        place: which of them this is.
    """

    def __init__(self, strategy: tf.distribute.Strategy, place: Place = ALONE) -> None:
        self._strategy, self.place = strategy, place
        self._gathered = tf.function(self._gather)

    def each(self, value: float) -> NDArray[np.float64]:
        """Return what each worker's value is, float64 `[workers]`, to all of them; they wait for the last to tell."""
        if self.place.alone:
            return np.array([value], np.float64)
        values = self._gathered(tf.constant(value, tf.float64)).numpy()
        replicas = len(values) // len(self.place.addresses)
        return values[::replicas]

    def most(self, value: float) -> float:
        """Return the largest of all workers' values, to all of them."""
        return float(self.each(value).max())

    def meet(self) -> None:
        """Wait until all workers have come here."""
        self.each(0)

    def check_alike(self, *, step: int, asked: Mapping[str, Any], variables: Mapping[str, Any]) -> None:
        """Refuse to begin where the workers do not all have the same.

        Args:
            step: from which this worker would begin.
            asked: what it was asked to do, as JSON has it.
            variables: of the model and its optimizer.

        Raises:
            RemaskError: another step, other options or other weights; the same on all workers.
        """
        if self.place.alone:
            return
        weights = 0
        for variable in variables.values():
            weights = zlib.crc32(variable.numpy().tobytes(), weights)
        options = zlib.crc32(json.dumps(asked, sort_keys=True).encode())
        for what, value in (("step", step), ("options or data", options), ("weights", weights)):
            found = self.each(value)
            others = np.flatnonzero(found != found[0])
            if others.size:
                begins = f" ({found[0]:.0f} and {found[others[0]]:.0f})" if what == "step" else ""
                raise RemaskError(
                    f"workers 0 and {others[0]} would begin with another {what}{begins}; start all of them with the "
                    f"same command, on data, a model and a RUN that all of them see: a bucket, or a disk they share"
                )

    def _gather(self, value: tf.Tensor) -> tf.Tensor:
        return self._strategy.gather(self._strategy.run(lambda: value[None]), axis=0)
