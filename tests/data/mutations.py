"""Damaged files from sound ones, and what reading them may cost."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import numpy as np

from seval.errors import DataError

_SPECIAL = (b"\0", b"\xff", b"\xff\xff\xff\x7f", b"\xff" * 8, b"0", b"-1", b"\n", b"(", b".", b"9" * 30)


def mutated(content: bytes, rng: np.random.RandomState) -> bytes:
    """The content after one to four random damages: bits, bytes, cuts, repetitions, holes, strange values."""
    damaged = bytearray(content)
    for _ in range(rng.randint(1, 5)):
        size = len(damaged)
        # Headers are where damage matters, but they are a small part of a file: every second damage is there.
        at = rng.randint(min(size, 200) if rng.randint(2) else size) if size else 0
        count = min(size - at, int(2 ** rng.uniform(0, 10)))
        match rng.randint(8):
            case 0 if size:
                damaged[at] ^= 1 << rng.randint(8)
            case 1:
                damaged[at : at + 1] = rng.bytes(1)
            case 2:
                del damaged[at:]
            case 3:
                del damaged[at : at + count]
            case 4:
                damaged[at:at] = damaged[at : at + count]
            case 5:
                damaged[at : at + count] = bytes(count)
            case 6:
                special = _SPECIAL[rng.randint(len(_SPECIAL))]
                damaged[at : at + len(special)] = special
            case 7:
                damaged[at:at] = _SPECIAL[rng.randint(len(_SPECIAL))]
    return bytes(damaged)


def is_plain(value: object) -> bool:
    """Whether a value is made of what a pickle of an image set can hold, and of nothing else."""
    todo, seen = [value], set()
    while todo:
        item = todo.pop()
        if type(item) in (list, tuple, dict):
            if id(item) not in seen:
                seen.add(id(item))
                todo.extend([*item.keys(), *item.values()] if type(item) is dict else item)
        elif type(item) is np.ndarray:
            if item.dtype.kind not in "uif" or item.flags.writeable:
                return False
        elif type(item) not in (type(None), bool, int, float, str, bytes):
            return False
    return True


def outcome(function: Callable[[], object]) -> tuple[object, str, int]:
    """What the call returns, or the message of its `DataError`, and the bytes it took at most. Others pass."""
    tracemalloc.start()
    try:
        value, message = function(), ""
    except DataError as error:
        value, message = None, str(error)
        assert message and message.isprintable() and len(message) < 1000, message
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return value, message, peak
