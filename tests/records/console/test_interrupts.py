import contextlib
import os
import signal
import sys
import threading
import time

import pytest

from records.console import interrupts
from records.console.command_line import Terminated
from tests import processes
from tests.said import must_name, one_line


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
    with pytest.raises(raised), interrupts.held("the lock of out") as signals:  # noqa: PT012
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
    with interrupts.held("the lock of out") as signals:
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
        with interrupts.held("the lock of out"):
            signal.raise_signal(signal.SIGTERM)
            done.append("held")
        done.append("not reached")
    assert done == ["held"]


def test_the_first_says_what_it_waits_for_and_the_second_comes_at_once(raising, capsys):
    done = []
    with pytest.raises(Terminated), interrupts.held("the lock of out") as signals:  # noqa: PT012
        signal.raise_signal(signal.SIGINT)
        must_name(one_line(capsys.readouterr().err), "SIGINT:", "the lock of out", "another one", "at once")
        signals.hold("the server")
        done.append("held")
        try:
            signal.raise_signal(signal.SIGTERM)
            done.append("not reached")
        finally:
            with pytest.raises(KeyboardInterrupt):  # whoever asks twice does not wait for what undoes it, either
                signal.raise_signal(signal.SIGINT)
    assert done == ["held"]


def test_the_second_stands_for_the_first_where_neither_raises(raising):
    received = []
    signal.signal(signal.SIGTERM, lambda number, frame: received.append("received"))
    with interrupts.held("the lock of out"):
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        received.append("held")
    assert received == ["received", "held"]


def test_what_it_waits_for_is_said_where_that_is_something_else(raising, capsys):
    with pytest.raises(Terminated), interrupts.held("the lock of out") as signals:  # noqa: PT012
        with signals.let_through():
            signals.hold("the server")
        signals.hold("the server")
        signal.raise_signal(signal.SIGTERM)
    must_name(one_line(capsys.readouterr().err), "SIGTERM:", "the server")


def test_a_standard_error_that_nobody_reads_disturbs_nothing(raising, monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    done = []
    with contextlib.suppress(BrokenPipeError), open(writer, "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        with pytest.raises(Terminated), interrupts.held("the lock of out"):  # noqa: PT012
            signal.raise_signal(signal.SIGTERM)
            done.append("held")
    assert done == ["held"]


def test_a_signal_that_comes_where_the_block_fails_is_not_lost_nor_is_what_failed(raising):
    with pytest.raises(Terminated) as caught, interrupts.held("the lock of out"):  # noqa: PT012
        signal.raise_signal(signal.SIGTERM)
        1 / 0  # noqa: B018
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_where_the_block_ends_by_a_signal_another_one_adds_nothing(raising):
    with pytest.raises(KeyboardInterrupt) as caught, interrupts.held("the lock of out") as signals:  # noqa: PT012
        try:
            with signals.let_through():
                signal.raise_signal(signal.SIGINT)
        finally:
            signal.raise_signal(signal.SIGTERM)
    assert (type(caught.value), caught.value.__cause__) == (KeyboardInterrupt, None)


@pytest.mark.parametrize("by_thread", [False, True])
def test_a_signal_while_handlers_are_put_back_leaves_none_of_ours_that_swallows_others(raising, monkeypatch, by_thread):
    exchange, sent, terminate = signal.signal, [], signal.getsignal(signal.SIGTERM)

    def exchanged(number, handler):
        before = exchange(number, handler)
        if handler is signal.default_int_handler and not sent:
            sent.append(number)
            if by_thread:
                received_by_a_thread(signal.SIGINT)
            else:
                signal.raise_signal(signal.SIGINT)
        return before

    with pytest.raises(KeyboardInterrupt), interrupts.held("the lock of out"):
        monkeypatch.setattr(signal, "signal", exchanged)
    monkeypatch.undo()
    assert sent
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())
    if not by_thread:  # from which nothing can keep it
        assert signal.getsignal(signal.SIGTERM) is terminate
    with pytest.raises(Terminated):
        signal.raise_signal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def received_by_a_thread(number):
    """Let another thread than this one, which may block it, receive a signal; Python's handler runs here."""
    ended = threading.Event()
    thread = threading.Thread(
        target=lambda: (signal.pthread_sigmask(signal.SIG_UNBLOCK, [number]), ended.wait(processes.LIMIT))
    )
    thread.start()
    try:
        signal.pthread_kill(thread.ident, number)
        deadline = time.monotonic() + processes.LIMIT
        while time.monotonic() < deadline:
            time.sleep(0.01)
    finally:
        ended.set()
        thread.join(processes.LIMIT)


def test_a_handler_that_python_has_not_set_is_left_alone(raising, monkeypatch):
    look = signal.getsignal
    monkeypatch.setattr(signal, "getsignal", lambda number: None if number == signal.SIGTERM else look(number))
    done = []
    with interrupts.held("the lock of out"):
        with pytest.raises(Terminated):
            signal.raise_signal(signal.SIGTERM)
        done.append("ended")
    assert done == ["ended"]


def test_handlers_are_as_they_were_and_what_is_ignored_stays_so(raising):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        terminate = signal.getsignal(signal.SIGTERM)
        with interrupts.held("the lock of out") as signals, signals.let_through():
            assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
            signal.raise_signal(signal.SIGINT)
        assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == (signal.SIG_IGN, terminate)
    finally:
        signal.signal(signal.SIGINT, before)


def test_outside_the_main_thread_nothing_is_held():
    done = []

    def work():
        with interrupts.held("the lock of out") as signals, signals.let_through():
            done.append("done")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(10)
    assert done == ["done"]
