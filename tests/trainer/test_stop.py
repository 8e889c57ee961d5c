import signal
import threading

import pytest

from trainer.stop import stop_signals


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


def test_other_threads_are_left_alone():
    found = []

    def run():
        with stop_signals(found.append) as stopped:
            found.append(stopped())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [0]
