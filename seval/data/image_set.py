"""What an image set consists of: its parts, whose images are in memory, in the HDF5 file or come block by block."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from seval.data.blocks import Blocks, blocks_of, dataset, mark, stored
from seval.data.disk import Steady, explained, opened
from seval.errors import DataError

PARTS = ("train", "test", "unlabeled")


@dataclass(frozen=True, eq=False)
class Encoded:
    """The N encoded images (JPEG) of one part of a prepared file, read one at a time, in any order.

    The file is opened when a process first reads, and once by each process, so that it can be pickled and forked.
    """

    path: Path
    part: str
    offsets: np.ndarray  # int64 (N + 1,), from 0 up
    mark: bytes  # of the array; see `blocks.mark`
    #: The file by process, with the array in it.
    _opened: dict[int, tuple[Steady, h5py.Dataset]] = field(default_factory=dict, init=False, repr=False)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def read(self, i: int) -> bytes:
        """Image i, as its publisher encoded it. Raises what `disk.opened` does, such as where the file is damaged."""
        if not 0 <= i < len(self):
            raise IndexError(f"image {i} of {len(self)} in {self.path}")
        if (process := os.getpid()) not in self._opened:
            steady = Steady(self.path, "read", self.path)
            with explained(steady):
                found = dataset(h5py.File(steady, "r"), f"{self.part}/encoded")
                if mark(found) != self.mark:
                    raise DataError(f"{self.path} was replaced by another set while it was in use; start again")
                self._opened[process] = steady, found
        steady, encoded = self._opened[process]
        try:
            with explained(steady, f"image {i} of {self.part}"):
                return encoded[self.offsets[i] : self.offsets[i + 1]].tobytes()
        except (OSError, MemoryError):
            del self._opened[process]  # HDF5 holds what could not be read; the next call opens the file again
            raise

    def content(self) -> Blocks:
        """The same bytes from start to end."""
        return stored(self.path, f"{self.part}/encoded", (int(self.offsets[-1]),), self.offsets)

    def __reduce__(self) -> tuple:  # offsets can be megabytes, and every task of a worker carries a pickle
        return _encoded, (self.path, self.part, self.mark)


@dataclass(frozen=True, eq=False)
class Joined:
    """The encoded images of one part and, numbered after them, those of another."""

    first: "Encoded | Joined"
    second: "Encoded | Joined"

    @property
    def path(self) -> Path:
        return self.first.path

    def __len__(self) -> int:
        return len(self.first) + len(self.second)

    def read(self, i: int) -> bytes:
        """Image i of both."""
        return self.first.read(i) if i < len(self.first) else self.second.read(i - len(self.first))


EncodedImages = Encoded | Joined


@lru_cache
def _encoded(path: Path, part: str, mark: bytes) -> Encoded:
    with opened(path) as file:
        return Encoded(path, part, dataset(file, f"{part}/offsets")[()], mark)


class Part(NamedTuple):
    """Images uint8 (N, c, H, W), or N encoded ones, and labels int64 (N,); -1 is unknown, in the unlabeled part only.

    `batch` uint8 (N,) is the number, from 1, of the publisher's batch or list that an image comes from, where a set's
    splits need it.
    """

    images: np.ndarray | Blocks | Encoded
    labels: np.ndarray
    batch: np.ndarray | None = None

    @property
    def pixels(self) -> np.ndarray:
        """The images where they are in memory; anything else raises `TypeError`."""
        if not isinstance(self.images, np.ndarray):
            raise TypeError(f"the images of this part are {type(self.images).__name__}, not in memory")
        return self.images

    @property
    def content(self) -> np.ndarray | Blocks:
        """The images as they are in the file: pixels, or the bytes of all encoded images."""
        return self.images.content() if isinstance(self.images, Encoded) else self.images

    @property
    def offsets(self) -> np.ndarray | None:
        """Where each encoded image begins in `content`, int64 (N + 1,); None for pixels."""
        return None if isinstance(self.images, np.ndarray) else self.images.offsets

    def arrays(self) -> dict[str, np.ndarray | Blocks]:
        """What the file holds of this part, by name."""
        images = "images" if self.offsets is None else "encoded"
        arrays = {images: self.content, "offsets": self.offsets, "labels": self.labels, "batch": self.batch}
        return {name: array for name, array in arrays.items() if array is not None}


class ImageSet(NamedTuple):
    """A prepared set. `mean` and `std` are per channel, on the scale where a pixel lies in [0, 1]."""

    name: str
    train: Part
    test: Part
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    #: source, license, credit, sources_sha256, official (None: no published checksum); class_counts once written;
    #: statistics_of where mean and std are those of other images; preparation: what was done to a user's own images
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

    def arrays(self) -> dict[str, np.ndarray | Blocks]:
        """What the file holds, by its path in there."""
        return {f"{name}/{key}": array for name, part in self.parts.items() for key, array in part.arrays().items()}


def class_counts(images: ImageSet) -> dict[str, list[int]]:
    """Images of every class, by part; images of unknown class are not counted."""
    return {
        name: np.bincount(part.labels[part.labels >= 0], minlength=images.num_classes).tolist()
        for name, part in images.parts.items()
    }


def statistics(images: np.ndarray | Blocks) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of uint8 images (N, c, H, W), on the scale of [0, 1]."""
    levels = np.arange(256) / 255
    counts = np.zeros((images.shape[1], 256), np.int64)
    for block in blocks_of(images):  # over the histogram: exact, and no float copy of the images
        counts += [np.bincount(block[:, channel].ravel(), minlength=256) for channel in range(len(counts))]
    share = counts / counts.sum(1, keepdims=True)
    mean = share @ levels
    std = np.sqrt([row @ (levels - m) ** 2 for row, m in zip(share, mean, strict=True)])
    return tuple(mean.tolist()), tuple(std.tolist())


def fingerprint(images: ImageSet) -> str:
    """SHA-256 over the content of a set, as `hdf5.read` gives it, and over all that its header says of it."""
    fields = {key: getattr(images, key) for key in ("name", "class_names", "mean", "std")}
    return _hash([fields, dict(images.attributes), dict(images.sha256)])


def fingerprint_0_1(images: ImageSet) -> str:
    """The fingerprint in records of version 0.1.0: over the arrays only."""
    return _hash(dict(images.sha256))


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
