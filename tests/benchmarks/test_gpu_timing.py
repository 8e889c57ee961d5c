import math

import pytest

from benchmarks.gpu_timing import WARM_UP, WINDOWS, timed

WORDS = 31
NOTHING = math.log(WORDS)
"""The loss of a model that knows nothing."""


class Device:
    """Works off steps of half a second each when it is waited for; the first takes nine seconds more."""

    def __init__(self, losses: tuple[float, float] = (NOTHING, 1.0)) -> None:
        self.now, self.begun, self.done = 0.0, 0, 0
        self.losses, self.waits = losses, []

    def step(self, number: int) -> int:
        assert number == self.begun
        self.begun += 1
        return number

    def loss_of(self, number: int) -> float:
        assert number == self.begun - 1  # it is the last one that is waited for
        self.now += 9 * (self.done == 0) + 0.5 * (self.begun - self.done)
        self.done = self.begun
        self.waits.append(self.done)
        return self.losses[number > 0]

    def timed(self, seconds: float) -> dict:
        return timed(
            self.step,
            self.loss_of,
            tokens=(10, 20, 30),
            sequences=4,
            vocab_size=WORDS,
            seconds=seconds,
            clock=lambda: self.now,
        )


def test_windows_hold_whole_steps_of_which_the_last_alone_is_waited_for():
    device = Device()
    found = device.timed(seconds=10.0)
    assert WINDOWS == 5
    assert [(one["steps"], one["sequences"], one["seconds"]) for one in found["windows"]] == [(4, 16, 2.0)] * 5
    first = 1 + WARM_UP + 1  # one more, by which the length of windows is chosen
    assert device.waits == [1, 1 + WARM_UP, first, *range(first + 4, first + 21, 4)]
    assert found["first_step_seconds"] == 9.5
    assert (found["first_loss"], found["loss"]) == (NOTHING, 1.0)


def test_tokens_are_those_of_the_batches_that_were_taken():
    assert WARM_UP == 3
    # Steps 5 to 8 are on batches 2, 0, 1, 2, the next on 0, 1, 2, 0, and so on.
    assert [one["tokens"] for one in Device().timed(seconds=10.0)["windows"]] == [90, 70, 80, 90, 70]


def test_a_slow_device_takes_a_step_a_window():
    assert [one["steps"] for one in Device().timed(seconds=0.1)["windows"]] == [1] * WINDOWS


@pytest.mark.parametrize(
    "losses",
    [(0.0, 0.0), (NOTHING + 2, 1.0), (NOTHING, math.nan), (math.nan, 1.0), (NOTHING, NOTHING + 2), (NOTHING, -1)],
)
def test_what_does_not_train_has_no_speed(losses):
    with pytest.raises(ValueError, match=r"expected 3\.43 at first, and then no more: it does not train"):
        Device(losses).timed(seconds=1.0)
