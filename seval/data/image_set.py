"""What an image set consists of: its parts, whose images are in memory, in the HDF5 file or come block by block."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from seval.data.blocks import Blocks, blocks_of, dataset, stored
from seval.errors import DataError, one_line

PARTS = ("train", "test", "unlabeled")


@dataclass(frozen=True, eq=False)
class Encoded:
    """The N encoded images (JPEG) of one part of a prepared file, read one at a time, in any order.

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
                self._opened[process] = dataset(h5py.File(self.path, "r"), f"{self.part}/encoded")
            return self._opened[process][self.offsets[i] : self.offsets[i + 1]].tobytes()
        except (OSError, KeyError) as error:
            raise DataError(f"{self.path} is damaged or gone: image {i} of {self.part} ({one_line(error)})") from None

    def content(self) -> Blocks:
        """The same bytes from start to end."""
        return stored(self.path, f"{self.part}/encoded", (int(self.offsets[-1]),), self.offsets)

    def __reduce__(self) -> tuple:  # offsets can be megabytes, and every task of a worker carries a pickle
        return _encoded, (self.path, self.part)


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
def _encoded(path: Path, part: str) -> Encoded:
    with h5py.File(path, "r") as file:
        return Encoded(path, part, dataset(file, f"{part}/offsets")[()])


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


def check_arrays(images: ImageSet, wrong: str, todo: str) -> None:
    """Dtypes, shapes and label range of a set. Raises `DataError`, which begins with `wrong` and ends in `todo`."""
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
    channels = images.train.content.shape[1] if images.train.offsets is None else 3
    if len(images.mean) != channels or len(images.std) != channels or not min(images.std) > 0:
        raise DataError(f"{wrong}: mean {images.mean} and std {images.std} do not fit {channels} channels; {todo}")


def _pixel_fault(name: str, part: Part, train: Part) -> str:
    """What is wrong with the images of a part, or nothing."""
    images, at = part.content, part.offsets
    if (at is None) != (train.offsets is None):
        return f"of {name} and train, only one has encoded images"
    if at is not None:
        if at.dtype != np.int64 or at.ndim != 1 or len(at) < 2 or at[0] or np.diff(at).min() < 1:
            return f"{name}/offsets must be int64 (N + 1,) and rise from 0"
        return ""
    if images.dtype != np.uint8 or len(images.shape) != 4 or not images.nbytes:
        return f"{name}/images must be uint8 (N, c, H, W), but is {images.dtype} {images.shape}"
    if images.shape[1:] != train.content.shape[1:]:
        return f"{name} has images of {images.shape[1:]}, but train of {train.content.shape[1:]}"
    return ""
