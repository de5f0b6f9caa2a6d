"""How a test says which arrays it uses, so that an array that no test uses is found."""

from __future__ import annotations

import hashlib
import inspect
import itertools
from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatchcase
from functools import cache, wraps
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent


@cache
def arrays(name: str) -> dict[str, np.ndarray]:
    """Every array of `<name>.npz`, not writable: tests share them."""
    with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as file:
        loaded = {key: file[key] for key in file.files}
    for array in loaded.values():
        array.flags.writeable = False
    return loaded


class Vectors(Mapping[str, np.ndarray]):
    """The arrays of one file that match one of the `patterns`; remembers which of them were read."""

    def __init__(self, name: str, patterns: tuple[str, ...]) -> None:
        self.found = {key: array for key, array in arrays(name).items() if matches(key, patterns)}
        self.read: set[str] = set()
        idle = [pattern for pattern in patterns if not any(matches(key, (pattern,)) for key in self.found)]
        assert not idle, f"{name}.npz has no array {', '.join(idle)}"

    def __getitem__(self, key: str) -> np.ndarray:
        self.read.add(key)
        return self.found[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.found)

    def __len__(self) -> int:
        return len(self.found)

    def unread(self) -> list[str]:
        return sorted(self.found.keys() - self.read)


def matches(key: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(key, pattern) for pattern in patterns)


def uses(name: str, *patterns: str) -> Callable[[Callable], Callable]:
    """The test's first argument will be `Vectors`, and the test fails unless it reads every array in it.

    `{x}` in a pattern is the value of the test's parameter x.
    """

    def decorate(test: Callable) -> Callable:
        @wraps(test)
        def run(**given: object) -> None:
            vectors = Vectors(name, filled(patterns, given))
            test(vectors, **given)
            assert not vectors.unread(), f"arrays that the test did not use: {', '.join(vectors.unread())}"

        signature = inspect.signature(test)
        run.__signature__ = signature.replace(parameters=list(signature.parameters.values())[1:])
        run.uses = name, patterns
        return run

    return decorate


def used_patterns(test: Callable) -> set[str]:
    """The patterns of a test under `uses`, with every value of its parameters."""
    _, patterns = test.uses
    choices = []
    for mark in getattr(test, "pytestmark", ()):
        if mark.name == "parametrize":
            names, values = mark.args
            names = names.split(", ")
            choices.append([dict(zip(names, v if len(names) > 1 else [v], strict=True)) for v in values])
    given = [{k: v for part in parts for k, v in part.items()} for parts in itertools.product(*choices)]
    return {pattern for values in given for pattern in filled(patterns, values)}


def filled(patterns: tuple[str, ...], values: Mapping[str, object]) -> tuple[str, ...]:
    return tuple(pattern.format(**values) for pattern in patterns)


def digest(data: bytes, digits: int = 64) -> bytes:
    """The first digits of the SHA-256, as the arrays hold it."""
    return hashlib.sha256(data).hexdigest()[:digits].encode()
