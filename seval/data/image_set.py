"""What an image set is made of: its parts, whose images lie in memory, in the HDF5 file or come block by block."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from seval.errors import DataError, one_line

PARTS = ("train", "test", "unlabeled")
BLOCK_BYTES = 1 << 24  # of an array that is read or made piece by piece


@dataclass(frozen=True, eq=False)
class Stream:
    """An array of uint8 that need not fit into memory: `blocks()` yields it along its first axis, from the start.

    As the images of a part it is (N, c, H, W); with `offsets` int64 (N + 1,) it is the bytes of N encoded images, one
    after the other, and image i is offsets[i] to offsets[i + 1].
    """

    shape: tuple[int, ...]
    blocks: Callable[[], Iterator[np.ndarray]]
    offsets: np.ndarray | None = None

    def __len__(self) -> int:
        return self.shape[0] if self.offsets is None else len(self.offsets) - 1


@dataclass(frozen=True, eq=False)
class Encoded:
    """The N encoded images (JPEG) of one part of a prepared file, read from it one at a time.

    The file is opened when a process first reads, and once by each process, so that it can be pickled and forked.
    """

    path: Path
    part: str
    offsets: np.ndarray  # int64 (N + 1,), from 0 up
    _opened: dict[int, h5py.Dataset] = field(default_factory=dict, init=False, repr=False)  # by process

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def read(self, i: int) -> bytes:
        """Image i, as its publisher encoded it. Raises `DataError` where the file is damaged."""
        if not 0 <= i < len(self):
            raise IndexError(f"image {i} of {len(self)} in {self.path}")
        try:
            if (process := os.getpid()) not in self._opened:
                self._opened[process] = h5py.File(self.path, "r")[f"{self.part}/encoded"]
            return self._opened[process][self.offsets[i] : self.offsets[i + 1]].tobytes()
        except (OSError, KeyError) as error:
            raise DataError(f"{self.path} is damaged or gone: image {i} of {self.part} ({one_line(error)})") from None

    def stream(self) -> Stream:
        """The same bytes from start to end."""
        return stored(self.path, f"{self.part}/encoded", (int(self.offsets[-1]),), self.offsets)

    def __reduce__(self) -> tuple:  # offsets can be megabytes, and every task of a worker carries a pickle
        return _encoded, (self.path, self.part)


@dataclass(frozen=True, eq=False)
class Joined:
    """The images of one part and, numbered after them, those of another."""

    first: Encoded
    second: Encoded

    @property
    def path(self) -> Path:
        return self.first.path

    def __len__(self) -> int:
        return len(self.first) + len(self.second)

    def read(self, i: int) -> bytes:
        """Image i, as its publisher encoded it. Raises `DataError` where the file is damaged."""
        return self.first.read(i) if i < len(self.first) else self.second.read(i - len(self.first))


@lru_cache
def _encoded(path: Path, part: str) -> Encoded:
    with h5py.File(path, "r") as file:
        return Encoded(path, part, file[f"{part}/offsets"][()])


class Part(NamedTuple):
    """Images uint8 (N, c, H, W), or N encoded ones, and labels int64 (N,); -1 is unknown, in the unlabeled part only.

    `batch` uint8 (N,) is the number, from 1, of the publisher's batch or list that an image comes from, where a set's
    splits need it.
    """

    images: np.ndarray | Stream | Encoded
    labels: np.ndarray
    batch: np.ndarray | None = None

    @property
    def is_encoded(self) -> bool:
        return getattr(self.images, "offsets", None) is not None

    def arrays(self) -> dict[str, np.ndarray | Stream]:
        """What the file holds of this part, by name."""
        images = self.images.stream() if isinstance(self.images, Encoded) else self.images
        fields = {"encoded": images, "offsets": images.offsets} if self.is_encoded else {"images": images}
        fields["labels"] = self.labels
        return fields if self.batch is None else fields | {"batch": self.batch}


class ImageSet(NamedTuple):
    """A prepared set. `mean` and `std` are per channel, on the scale where a pixel lies in [0, 1]."""

    name: str
    train: Part
    test: Part
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    #: source, license, credit, sources_sha256, official (None: no published checksum); class_counts once written;
    #: statistics_of where mean and std are those of other images
    attributes: Mapping[str, object]
    unlabeled: Part | None = None
    sha256: Mapping[str, str] = {}  # "train/images" -> digest over dtype, shape and bytes, as stored in the file

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def parts(self) -> dict[str, Part]:
        """The parts this set has, by name."""
        return {name: part for name in PARTS if (part := getattr(self, name)) is not None}

    def arrays(self) -> dict[str, np.ndarray | Stream]:
        """What the file holds, by its path in there."""
        return {f"{name}/{key}": array for name, part in self.parts.items() for key, array in part.arrays().items()}


class Digest:
    """SHA-256 over dtype, shape and bytes (C order) of an array that comes block by block."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self._sha = hashlib.sha256(json.dumps([dtype.str, list(map(int, shape))]).encode())

    def update(self, block: np.ndarray) -> None:
        self._sha.update(np.ascontiguousarray(block).data)

    def hexdigest(self) -> str:
        return self._sha.hexdigest()


def digest(array: np.ndarray | Stream) -> str:
    """SHA-256 over dtype, shape and bytes; of a stream the same as of the whole array."""
    sha = Digest(array.shape, dtype_of(array))
    for block in blocks_of(array):
        sha.update(block)
    return sha.hexdigest()


def blocks_of(array: np.ndarray | Stream) -> Iterable[np.ndarray]:
    """The array along its first axis, in pieces; one piece, and no copy, where it lies in memory."""
    return array.blocks() if isinstance(array, Stream) else [array]


def dtype_of(array: np.ndarray | Stream) -> np.dtype:
    return np.dtype(np.uint8) if isinstance(array, Stream) else array.dtype


def stored(path: Path, key: str, shape: tuple[int, ...], offsets: np.ndarray | None = None) -> Stream:
    """The uint8 dataset `key` of an HDF5 file as a stream. Its blocks raise `OSError` where a checksum is wrong."""

    def blocks() -> Iterator[np.ndarray]:
        with h5py.File(path, "r") as file:
            rows = max(1, BLOCK_BYTES // max(1, int(np.prod(shape[1:]))))
            for start in range(0, shape[0], rows):
                yield file[key][start : start + rows]

    return Stream(shape, blocks, offsets)


def class_counts(images: ImageSet) -> dict[str, list[int]]:
    """Images of every class, by part; images of unknown class are not counted."""
    return {
        name: np.bincount(part.labels[part.labels >= 0], minlength=images.num_classes).tolist()
        for name, part in images.parts.items()
    }


def statistics(images: np.ndarray | Stream) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of uint8 images (N, c, H, W), on the scale of [0, 1]."""
    levels = np.arange(256) / 255
    counts = np.zeros((images.shape[1], 256), np.int64)
    for block in blocks_of(images):  # over the histogram: exact, and no float copy of the images
        counts += [np.bincount(block[:, channel].ravel(), minlength=256) for channel in range(len(counts))]
    share = counts / counts.sum(1, keepdims=True)
    mean = share @ levels
    std = np.sqrt([row @ (levels - m) ** 2 for row, m in zip(share, mean, strict=True)])
    return tuple(mean.tolist()), tuple(std.tolist())


def check(images: ImageSet, wrong: str, todo: str) -> None:
    """dtypes, shapes and label range of a set; raises `DataError`."""
    for name, part in images.parts.items():
        lowest, labels = -1 if name == "unlabeled" else 0, part.labels
        if fault := _pixel_fault(name, part, images.train):
            pass
        elif labels.dtype != np.int64 or labels.shape != (len(part.images),):
            fault = f"{name}/labels must be int64 ({len(part.images)},), but is {labels.dtype} {labels.shape}"
        elif labels.min() < lowest or labels.max() >= images.num_classes:
            fault = (
                f"{name}/labels run from {labels.min()} to {labels.max()}, "
                f"but must lie in {lowest}..{images.num_classes - 1}"
            )
        elif part.batch is not None and (part.batch.dtype != np.uint8 or part.batch.shape != labels.shape):
            fault = f"{name}/batch must be uint8 {labels.shape}, but is {part.batch.dtype} {part.batch.shape}"
        if fault:
            raise DataError(f"{wrong}: {fault}; {todo}")
    channels = 3 if images.train.is_encoded else images.train.images.shape[1]
    if len(images.mean) != channels or len(images.std) != channels or not min(images.std) > 0:
        raise DataError(f"{wrong}: mean {images.mean} and std {images.std} do not fit {channels} channels; {todo}")


def _pixel_fault(name: str, part: Part, train: Part) -> str:
    """What is wrong with the images of a part, or nothing."""
    images = part.images
    if part.is_encoded != train.is_encoded:
        return f"of {name} and train, one has encoded images and the other pixels"
    if part.is_encoded:
        at = images.offsets
        if at.dtype != np.int64 or at.ndim != 1 or len(at) < 2 or at[0] or np.diff(at).min() < 1:
            return f"{name}/offsets must be int64 (N + 1,) and rise from 0"
        return ""
    if dtype_of(images) != np.uint8 or len(images.shape) != 4 or not size_in_bytes(images):
        return f"{name}/images must be uint8 (N, c, H, W), but is {dtype_of(images)} {images.shape}"
    if images.shape[1:] != train.images.shape[1:]:
        return f"{name} has images of {images.shape[1:]}, but train of {train.images.shape[1:]}"
    return ""


def size_in_bytes(array: np.ndarray | Stream) -> int:
    return int(np.prod(array.shape, dtype=np.int64)) * dtype_of(array).itemsize
