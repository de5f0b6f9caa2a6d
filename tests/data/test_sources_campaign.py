"""Hundreds of damaged raw files of every format: each is read whole, or refused in one line, at no great cost."""

from __future__ import annotations

import gzip
import io
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from seval.data.checks import check_arrays
from seval.data.image_set import ImageSet
from seval.data.sources import SOURCES
from tests.data.mutations import mutated, outcome
from tests.data.test_sources_fashion_mnist import write_fashion
from tests.standins import (
    whole,
    write_cifar100,
    write_imagenet,
    write_semi_aves,
    write_small_cifar10,
    write_stl10,
)

Change = Callable[[bytes, np.random.RandomState], bytes]


def packed(write: Callable, archive: str) -> Callable:
    """What `write` writes, as an archive without the folder."""

    def write_packed(raw: Path, tiny: ImageSet) -> None:
        folder = write(raw, tiny)
        with tarfile.open(raw / archive, "w:gz", compresslevel=1) as tar:
            tar.add(folder, folder.name)
        shutil.rmtree(folder)

    return write_packed


def inside_gzip(content: bytes, rng: np.random.RandomState) -> bytes:
    """Damage that a checksum of the package does not notice."""
    return gzip.compress(mutated(gzip.decompress(content), rng), 1)


def inside_tar(content: bytes, rng: np.random.RandomState) -> bytes:
    """Damage to the first header of a file in the archive, whose checksum is then made right."""
    damaged = bytearray(gzip.decompress(content))
    at = 512 * rng.randint(3)
    damaged[at : at + 512] = mutated(bytes(damaged[at : at + 512]), rng)[:512].ljust(512, b"\0")
    damaged[at + 148 : at + 156] = b" " * 8
    damaged[at + 148 : at + 156] = b"%06o\0 " % sum(damaged[at : at + 512])
    return gzip.compress(damaged, 1)


def inside_npz(content: bytes, rng: np.random.RandomState) -> bytes:
    """Damage to an array of an .npz, with a right checksum."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(made, "w") as new:
        chosen = rng.randint(len(old.namelist()))
        for k, name in enumerate(old.namelist()):
            new.writestr(name, mutated(old.read(name), rng) if k == chosen else old.read(name))
    return made.getvalue()


#: By kind of file: set, what writes its files, the files that are damaged, how, and how often.
CAMPAIGN = {
    "CIFAR-10": ("cifar10", write_small_cifar10, "*/*", mutated, 120),
    "CIFAR-100": ("cifar100", write_cifar100, "*/*", mutated, 60),
    "CIFAR-10, .tar.gz": ("cifar10", packed(write_small_cifar10, "cifar-10-python.tar.gz"), "*.gz", mutated, 60),
    "CIFAR-10, in .gz": ("cifar10", packed(write_small_cifar10, "cifar-10-python.tar.gz"), "*.gz", inside_gzip, 60),
    "CIFAR-10, in .tar": ("cifar10", packed(write_small_cifar10, "cifar-10-python.tar.gz"), "*.gz", inside_tar, 60),
    "STL-10": ("stl10", write_stl10, "*/*", mutated, 60),
    "STL-10, .tar.gz": ("stl10", packed(write_stl10, "stl10_binary.tar.gz"), "*.gz", mutated, 20),
    "IDX, .gz": ("fashion_mnist", write_fashion, "*.gz", mutated, 80),
    "IDX": ("fashion_mnist", write_fashion, "*.gz", inside_gzip, 80),
    "Semi-Aves, images": ("semi_aves", write_semi_aves, "*/test/*.jpg", mutated, 25),
    "Semi-Aves, lists": ("semi_aves", write_semi_aves, "*/*.txt", mutated, 40),
    "ImageNet": ("small_imagenet127", write_imagenet, "*", mutated, 40),
    "ImageNet, protocol 5": ("small_imagenet127", lambda r, t: write_imagenet(r, t, form="5"), "*", mutated, 40),
    "ImageNet, .npz": ("small_imagenet127", lambda r, t: write_imagenet(r, t, form="npz"), "*", mutated, 40),
    "ImageNet, .npy": ("small_imagenet127", lambda r, t: write_imagenet(r, t, form="npz"), "*", inside_npz, 40),
}


def read(name: str, raw: Path) -> ImageSet:
    """The set, with every block of it."""
    images = SOURCES[name].read(raw)
    check_arrays(images, f"{raw} was read wrongly", "mend its source")
    for array in images.arrays().values():
        whole(array)
    return images


@pytest.mark.parametrize("kind", CAMPAIGN)
def test_damaged_files_are_read_or_refused(tmp_path, tiny, kind):
    name, write, pattern, damage, times = CAMPAIGN[kind]
    write(tmp_path, tiny)
    paths = sorted(path for path in tmp_path.glob(pattern) if path.is_file())
    rng, refused = np.random.RandomState(zlib.crc32(kind.encode())), 0
    _, message, usual = outcome(lambda: read(name, tmp_path))
    assert not message and paths
    for _ in range(times):
        path = paths[rng.randint(len(paths))]
        content = path.read_bytes()
        path.write_bytes(damaged := damage(content, rng))
        images, message, peak = outcome(lambda: read(name, tmp_path))
        path.write_bytes(content)
        assert peak < 2 * usual + 2 * len(damaged) + 10e6
        assert (images is not None) != bool(message) and "was read wrongly" not in message
        if message:
            refused += 1
            assert str(tmp_path) in message
    assert refused > times // 10
