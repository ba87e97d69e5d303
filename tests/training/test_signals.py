import os
import signal
import threading

import pytest

from senet.training.signals import Signals


def test_sigterm_is_noted_and_nothing_else_happens() -> None:
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    with Signals() as signals:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.asked == signal.SIGTERM
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before


def test_the_second_interrupt_is_taken_at_once() -> None:
    # Shells have programs in the background ignore it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with Signals() as signals:
            os.kill(os.getpid(), signal.SIGINT)
            assert signals.asked == signal.SIGINT
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_another_thread_takes_no_signals() -> None:
    found = []

    def run() -> None:
        with Signals() as signals:
            found.append(signals.asked)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [None]
