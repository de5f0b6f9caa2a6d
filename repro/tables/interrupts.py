"""Ctrl-C ends a command in one line and with exit code 130, at every moment. Imports nothing slow."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from types import TracebackType

INTERRUPTED = 130


def end_at_once(tidy: Callable[[], object] = lambda: None) -> None:
    """From here on Ctrl-C ends this process, also where an exception would be lost, such as in an import.

    `tidy` is called before. It must not raise. A package that cannot be imported ends the process in one line, too.
    """
    signal.signal(signal.SIGINT, partial(_end, tidy))
    sys.excepthook = _end_unusable
    if sys.version_info < (3, 11):  # noqa: UP036 (any Python can be told to start a script)
        _end_unusable(ImportError, ImportError(f"it is Python {sys.version.split()[0]}, not 3.11 or newer"), None)


@contextmanager
def raised() -> Iterator[None]:
    """Inside, Ctrl-C is a `KeyboardInterrupt`, as something has to be put away first."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _end(tidy: Callable[[], object], *_: object) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    tidy()
    with suppress(OSError):
        os.write(2, f"{below_the_sign()}interrupted\n".encode())
    os._exit(INTERRUPTED)


def _end_unusable(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """One line and exit code 2 where Python cannot load a package: it is missing, or memory is short for it."""
    name = (getattr(error, "name", None) or "").partition(".")[0]
    if not isinstance(error, ImportError | MemoryError) or name in ("seval", "repro"):  # a fault of this code
        sys.__excepthook__(kind, error, trace)
        return
    from seval.errors import memory_short
    from seval.places import ENVIRONMENT

    words = " ".join(str(error).split()) or kind.__name__
    advice = "memory is short" if memory_short(error) else ENVIRONMENT
    with suppress(OSError):
        os.write(2, f"error: {sys.executable} cannot run this ({words}); {advice}\n".encode())
    os._exit(2)


def below_the_sign() -> str:
    """A new line where a terminal has written ^C into this one."""
    return "\n" * os.isatty(2)
