"""Arrays that need not fit into memory: they are read or made block by block."""

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import h5py
import numpy as np

BLOCK_BYTES = 1 << 24  # about the size of a block


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
    """The array along its first axis, in pieces; a single piece, and no copy, where it is in memory."""
    return array.blocks() if isinstance(array, Blocks) else [array]


def dataset(group: h5py.Group, key: str) -> h5py.Dataset:
    """The array at `key` in a group of an HDF5 file. Raises `KeyError` where there is none."""
    if not isinstance(found := group[key], h5py.Dataset):
        raise KeyError(f"{group.name}/{key} is not an array")
    return found


def stored(path: Path, key: str, shape: tuple[int, ...], offsets: np.ndarray | None = None) -> Blocks:
    """The uint8 dataset `key` of an HDF5 file. Its blocks raise `OSError` where a checksum is wrong."""

    def blocks() -> Iterator[np.ndarray]:
        with h5py.File(path, "r") as file:
            rows = max(1, BLOCK_BYTES // max(1, math.prod(shape[1:])))
            for start in range(0, shape[0], rows):
                yield dataset(file, key)[start : start + rows]

    return Blocks(shape, blocks, offsets)
