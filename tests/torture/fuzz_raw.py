"""Mutated raw files of every data set: read, or refused in one line; no memory and no time without end."""

from __future__ import annotations

import gzip
import random
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from seval.data.blocks import blocks_of
from seval.data.hdf5 import read
from seval.data.sources import SOURCES
from seval.errors import SevalError
from seval.policy.seval import published
from tests import standins
from tests.data.test_sources_fashion_mnist import write_fashion
from tests.settings import ROOT
from tests.torture.damage import cut, flip, hole
from tests.torture.explore import explore, judged
from tests.torture.lab import Lab
from tests.torture.table import Row

Maker = Callable[[Path, object], object]


def packed(folder: Path, tiny) -> None:
    """CIFAR-10 as an archive."""
    made = standins.write_small_cifar10(folder, tiny, 4, 2)
    with tarfile.open(folder / "cifar-10-python.tar.gz", "w:gz") as tar:
        tar.add(made, made.name)
    shutil.rmtree(made)


def curriculum(folder: Path, tiny) -> None:
    """A published curriculum: two .npy files."""
    for name in ("pi", "thres"):
        np.save(folder / f"c_estim_{name}.npy", np.full((3, 10), 0.1))


def consumed(name: str, raw: Path) -> None:
    """Read a set to its last byte."""
    for array in SOURCES[name].read(raw).arrays().values():
        for _ in blocks_of(array):
            pass


#: A data set, or how to read what is made.
SETS: dict[str, tuple[str | Callable[[Path], object], Maker]] = {
    "cifar10": ("cifar10", lambda folder, tiny: standins.write_small_cifar10(folder, tiny, 4, 2)),
    "cifar10 archive": ("cifar10", packed),
    "cifar100": ("cifar100", lambda folder, tiny: standins.write_cifar100(folder, tiny, 1, 1)),
    "fashion_mnist": ("fashion_mnist", lambda folder, tiny: write_fashion(folder, tiny, 12)),
    "stl10": ("stl10", lambda folder, tiny: standins.write_stl10(folder, tiny, 10, 10, 6)),
    "imagenet pickles": ("small_imagenet127", lambda folder, tiny: standins.write_imagenet(folder, tiny, count=12)),
    "imagenet npz": ("small_imagenet127", partial(standins.write_imagenet, count=12, form="npz")),
    "imagenet protocol 5": ("small_imagenet127", partial(standins.write_imagenet, count=12, form="5")),
    "semi_aves": ("semi_aves", lambda folder, tiny: standins.write_semi_aves(folder, tiny, 4, 4)),
    "curriculum": (lambda folder: published(folder / "c"), curriculum),
}


def near_start(rng: random.Random, content: bytes) -> bytes:
    """A few bytes replaced where headers and opcodes are."""
    found = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        found[rng.randrange(min(len(found), 400))] = rng.randrange(256)
    return bytes(found)


def inserted(rng: random.Random, content: bytes) -> bytes:
    at = rng.randrange(len(content))
    return content[:at] + rng.randbytes(rng.randint(1, 600)) + content[at:]


def doubled(rng: random.Random, content: bytes) -> bytes:
    at = rng.randrange(len(content))
    return content[:at] + content[at : at + rng.randint(1, 900)] + content[at:]


def inner(rng: random.Random, content: bytes) -> bytes:
    """Of a compressed file, what is inside."""
    return gzip.compress(rng.choice(PLAIN)(rng, gzip.decompress(content)), 1)


PLAIN = (flip, hole, cut, near_start, near_start, inserted, doubled)


def run(words: list[str]) -> int:
    """In a process of the zygote: so many mutations of one file each of a set."""
    name, count, seed = words
    source, make = SETS[name]
    rng = random.Random(f"raw {name} {seed}")
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder)
        make(raw, read(ROOT / "data" / "tiny.h5"))
        files = [path for path in sorted(raw.rglob("*")) if path.is_file() and path.stat().st_size]
        lists = [path for path in files if path.suffix == ".txt"] or files  # of a thousand images, few are opened

        def attempt(path: Path, content: bytes, other: bytes) -> None:
            path.write_bytes(other)
            try:
                consumed(source, raw) if isinstance(source, str) else source(raw)
            finally:
                path.write_bytes(content)

        def cases() -> Iterator[tuple[str, Callable[[], object]]]:
            for k in range(int(count)):
                path = rng.choice(lists if rng.random() < 0.5 else files)
                content = path.read_bytes()
                zipped = content[:2] == b"\x1f\x8b" and rng.random() < 0.6
                how = inner if zipped else rng.choice(PLAIN)
                yield (
                    f"{path.name}, {how.__name__}, case {k} of {seed}",
                    partial(attempt, path, content, how(rng, content)),
                )

        return explore(cases(), (SevalError,))


def fuzz(name: str, lab: Lab) -> Row:
    """In portions, so that a crash costs one of them."""
    row = Row(f"mutated raw files: {name}")
    for portion in range(0, 120 if lab.full else 20, 20):
        judged(lab, row, "tests.torture.fuzz_raw:run", name, 20, portion)
    return row


def named(name: str) -> Callable[[Lab], Row]:
    campaign = partial(fuzz, name)
    campaign.__module__, campaign.__name__ = __name__, name
    return campaign


CAMPAIGNS = tuple(map(named, SETS))
