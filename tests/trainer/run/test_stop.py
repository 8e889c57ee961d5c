import os
import signal
import socket
import threading

import pytest

from tests import processes
from trainer.run.stop import stop_signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_remembered_and_announced(number):
    said, before = [], signal.getsignal(number)
    with stop_signals(said.append) as stopped:
        assert stopped() == 0
        signal.raise_signal(number)
        assert stopped() == number
    assert said == [f"{number.name}: finishing the steps that are under way, then saving"]
    assert signal.getsignal(number) is before


def test_a_second_interrupt_is_obeyed_at_once():
    with stop_signals(lambda line: None) as stopped:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert stopped() == signal.SIGTERM


def test_a_signal_in_the_midst_of_a_line_is_no_error():
    reader, writer = os.pipe()
    with open(reader, "rb") as read, open(writer, "w") as file:

        def interrupt_and_read():  # the pipe is full until then, so that the line waits
            signal.pthread_kill(threading.main_thread().ident, signal.SIGTERM)
            while len(read.read1()):
                pass

        timer = threading.Timer(0.2, interrupt_and_read)
        timer.daemon = True
        timer.start()
        with stop_signals(lambda line: print(line, file=file, flush=True)) as stopped:
            print("x" * 1_000_000, file=file, flush=True)
            assert stopped() == signal.SIGTERM
        file.close()
        timer.join(processes.LIMIT)


def test_a_connection_that_somebody_else_has_closed_stops_nothing():
    ours, theirs = socket.socketpair()
    theirs.close()
    with stop_signals(pytest.fail) as stopped, ours, pytest.raises(BrokenPipeError):
        os.write(ours.fileno(), b"x")
    assert stopped() == 0


def test_other_threads_are_left_alone():
    found = []

    def run():
        with stop_signals(found.append) as stopped:
            found.append(stopped())

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(processes.LIMIT)
    assert found == [0]
