"""Signals that ask the training to stop after the current step."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

ASKING = (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT)  # schedulers send the first two before a limit; Ctrl-C


class Stop:
    """Calling it returns whether a signal has arrived; `signal` is the first that did."""

    signal: signal.Signals | None = None

    def __call__(self) -> bool:
        return self.signal is not None

    def hear(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT:  # the next Ctrl-C will not wait for a step to end
            signal.signal(number, signal.default_int_handler)
        self.signal = self.signal or signal.Signals(number)


@contextmanager
def listening() -> Iterator[Stop]:
    """Inside, signals only set the `Stop`; a second Ctrl-C interrupts. Outside the main thread it does nothing."""
    stop = Stop()
    heard = ASKING if threading.current_thread() is threading.main_thread() else ()
    before = [(number, signal.signal(number, stop.hear)) for number in heard]
    try:
        yield stop
    finally:
        for number, handler in before:
            signal.signal(number, handler or signal.SIG_DFL)
