"""Arrays that need not fit into memory: they are read or made block by block."""

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from operator import gt
from pathlib import Path
from typing import ClassVar

import h5py
import numpy as np

from seval.data.disk import opened

BLOCK_BYTES = 1 << 24  # about the size of a block
_SMALL, _DENSEST = 1 << 24, 64  # an array has at most the first in bytes, or the second times what is stored of it


@dataclass(frozen=True, eq=False)
class Blocks:
    """An array of uint8 that need not fit into memory: `blocks()` yields it along its first axis, from the start.

    As the images of a part it is (N, c, H, W); with `offsets` int64 (N + 1,) it is the bytes of N encoded images, one
    after the other, and image i is offsets[i] to offsets[i + 1].
    """

    shape: tuple[int, ...]
    blocks: Callable[[], Iterator[np.ndarray]]
    offsets: np.ndarray | None = None
    dtype: ClassVar[np.dtype] = np.dtype(np.uint8)

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape)

    def __len__(self) -> int:
        return self.shape[0] if self.offsets is None else len(self.offsets) - 1


def digest(array: np.ndarray | Blocks, blocks: Iterable[np.ndarray] | None = None) -> str:
    """SHA-256 over dtype, shape and bytes (C order); in memory or not. The bytes are those of `blocks` if given."""
    sha = hashlib.sha256(json.dumps([array.dtype.str, list(map(int, array.shape))]).encode())
    for block in blocks_of(array) if blocks is None else blocks:
        sha.update(np.ascontiguousarray(block).data)
    return sha.hexdigest()


def blocks_of(array: np.ndarray | Blocks) -> Iterable[np.ndarray]:
    """The array along its first axis, in pieces; they are no copies where it is in memory."""
    if isinstance(array, Blocks):
        return array.blocks()
    rows = max(1, BLOCK_BYTES * len(array) // max(1, array.nbytes))
    return (array[start : start + rows] for start in range(0, len(array), rows))


def dataset(file: h5py.File, key: str) -> h5py.Dataset:
    """The array at `key` of an HDF5 file. Raises `KeyError` where there is none.

    Raises `ValueError` where it is not of numbers, lies elsewhere, or claims more bytes than what is stored can be.
    """
    found = file
    for name in key.split("/"):
        if not isinstance(found, h5py.Group) or not isinstance(found.get(name, getlink=True), h5py.HardLink):
            raise KeyError(f"{key} is missing")
        found = found[name]
    if not isinstance(found, h5py.Dataset):
        raise KeyError(f"{key} is not an array")
    if found.external or found.is_virtual or found.dtype.kind not in "iuf":
        raise ValueError(f"{key} is not an array of numbers in this file")
    size, held = math.prod(found.shape) * found.dtype.itemsize, found.id.get_storage_size()
    chunk = found.chunks or found.shape
    if held > file.id.get_filesize() or size > _SMALL + _DENSEST * held or any(map(gt, chunk, found.shape)):
        raise ValueError(f"{key} claims {size} bytes, but {held} are stored")
    return found


def mark(array: h5py.Dataset) -> bytes:
    """The SHA-256 that an array of a prepared file names, to tell its content from that of another file."""
    return np.asarray(array.attrs["sha256"]).tobytes()


def stored(path: Path, key: str, shape: tuple[int, ...], offsets: np.ndarray | None = None) -> Blocks:
    """The uint8 dataset `key` of an HDF5 file. Its blocks raise what `disk.opened` does."""

    def blocks() -> Iterator[np.ndarray]:
        with opened(path) as file:
            array = dataset(file, key)
            rows = max(1, BLOCK_BYTES // max(1, math.prod(shape[1:])))
            for start in range(0, shape[0], rows):
                yield array[start : start + rows]

    return Blocks(shape, blocks, offsets)
