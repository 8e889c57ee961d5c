import signal
import threading

import pytest

from records.console import interrupts
from records.console.command_line import Terminated


@pytest.fixture
def raising():
    """Let SIGTERM raise, as in a command."""

    def terminate(number, frame):
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)])
def test_a_signal_waits_until_it_is_let_through(raising, number, raised):
    done = []
    with pytest.raises(raised), interrupts.held() as signals:  # noqa: PT012
        signal.raise_signal(number)
        done.append("held")
        try:
            with signals.let_through():
                done.append("not reached")
        finally:
            signal.raise_signal(number)  # a second one, while the first is seen to
            done.append("undone")
    assert done == ["held", "undone"]


def test_what_is_let_through_comes_at_once_and_is_held_again_behind(raising):
    done = []
    with interrupts.held() as signals:
        for _ in range(2):
            with pytest.raises(Terminated), signals.let_through():  # noqa: PT012
                signal.raise_signal(signal.SIGTERM)
                done.append("not reached")
        with pytest.raises(Terminated):  # noqa: PT012
            with signals.let_through():
                signals.hold()
                signal.raise_signal(signal.SIGTERM)
                done.append("held")
            with signals.let_through():
                done.append("not reached")
    assert done == ["held"]


def test_what_has_come_by_the_end_takes_effect_there(raising):
    done = []
    with pytest.raises(Terminated):  # noqa: PT012
        with interrupts.held():
            signal.raise_signal(signal.SIGTERM)
            done.append("held")
        done.append("not reached")
    assert done == ["held"]


def test_a_failure_is_told_and_not_the_signal_that_came_with_it(raising):
    with pytest.raises(ZeroDivisionError), interrupts.held():  # noqa: PT012
        signal.raise_signal(signal.SIGTERM)
        1 / 0  # noqa: B018


def test_handlers_are_as_they_were_and_what_is_ignored_stays_so(raising):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        terminate = signal.getsignal(signal.SIGTERM)
        with interrupts.held() as signals, signals.let_through():
            assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
            signal.raise_signal(signal.SIGINT)
        assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == (signal.SIG_IGN, terminate)
    finally:
        signal.signal(signal.SIGINT, before)


def test_outside_the_main_thread_nothing_is_held():
    done = []

    def work():
        with interrupts.held() as signals, signals.let_through():
            done.append("done")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(10)
    assert done == ["done"]
