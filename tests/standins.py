"""Stand-ins for files that the tests cannot download, made of the real images in data/tiny.h5."""

from __future__ import annotations

import pickle
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from seval.data.prepare import ImageSet

TINY = Path(__file__).resolve().parents[1] / "data" / "tiny.h5"
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def write_cifar10(
    raw: Path, images: np.ndarray, labels: np.ndarray, test_images: np.ndarray, test_labels: np.ndarray
) -> Path:
    """Write `raw`/cifar-10-batches-py in the exact format of the official files, Python 2 pickles; return that folder.

    Images are uint8 (N, c, H, W) with c 1 or 3 and H, W at most 32; see `as_cifar10`. The training images are dealt to
    the five batches in order, as evenly as can be. Loads with Python 2, torchvision and `seval.data.sources` alike.
    """
    folder = raw / "cifar-10-batches-py"
    folder.mkdir(parents=True, exist_ok=True)
    batches = list(zip(np.array_split(as_cifar10(images), 5), np.array_split(labels, 5), strict=True))
    for k, (pixels, targets) in enumerate(batches, start=1):
        _batch(folder / f"data_batch_{k}", pixels, targets, f"training batch {k} of 5")
    _batch(folder / "test_batch", as_cifar10(test_images), test_labels, "testing batch 1 of 1")
    _pickle(
        folder / "batches.meta",
        {
            b"num_cases_per_batch": len(batches[0][1]),
            b"label_names": [n.encode() for n in CIFAR10_CLASSES],
            b"num_vis": 3072,
        },
    )
    return folder


def write_small_cifar10(raw: Path, tiny: ImageSet, per_class: int = 20, test_per_class: int = 5) -> Path:
    """`write_cifar10` with the first so many images of every class of tiny, in file order."""
    parts = []
    for part, count in ((tiny.train, per_class), (tiny.test, test_per_class)):
        chosen = np.sort(np.concatenate([np.flatnonzero(part.labels == c)[:count] for c in range(tiny.num_classes)]))
        parts += [part.images[chosen], part.labels[chosen]]
    return write_cifar10(raw, *parts)


def as_cifar10(images: np.ndarray) -> np.ndarray:
    """uint8 (N, c, H, W) to (N, 3, 32, 32): pixels repeated, then a black border; gray becomes three channels."""
    scale = 32 // max(images.shape[2:])
    large = images.repeat(scale, axis=2).repeat(scale, axis=3)
    gaps = [32 - side for side in large.shape[2:]]
    padded = np.pad(large, ((0, 0), (0, 0), *((gap // 2, gap - gap // 2) for gap in gaps)))
    return padded.repeat(3 // padded.shape[1], axis=1)


def _batch(path: Path, images: np.ndarray, labels: np.ndarray, label: str) -> None:
    _pickle(
        path,
        {
            b"batch_label": label.encode(),
            b"labels": [int(y) for y in labels],
            b"data": np.ascontiguousarray(images.reshape(len(images), 3072)),
            b"filenames": [f"{CIFAR10_CLASSES[y]}_s_{i:06d}.png".encode() for i, y in enumerate(labels)],
        },
    )


def _pickle(path: Path, content: dict) -> None:
    with open(path, "wb") as file:
        _Python2Pickler(file, protocol=2).dump(content)


class _Python2Pickler(pickle._Pickler):
    """Writes bytes and ASCII text as Python 2 wrote its `str`, and names NumPy's functions as NumPy 1 did."""

    dispatch = pickle._Pickler.dispatch.copy()

    def save_bytes(self, obj: bytes) -> None:
        self.write(
            pickle.SHORT_BINSTRING + bytes([len(obj)]) + obj
            if len(obj) < 256
            else pickle.BINSTRING + struct.pack("<i", len(obj)) + obj
        )
        self.memoize(obj)

    def save_str(self, obj: str) -> None:
        self.save_bytes(obj.encode("ascii"))

    def save_global(self, obj: object, name: str | None = None) -> None:
        module = obj.__module__.replace("numpy._core", "numpy.core")
        self.write(pickle.GLOBAL + f"{module}\n{name or obj.__qualname__}\n".encode())
        self.memoize(obj)

    dispatch[bytes], dispatch[str] = save_bytes, save_str
    dispatch[type(write_cifar10)] = dispatch[type] = save_global


@dataclass(frozen=True)
class Jpegs:
    """Encoded images as a folder of JPEG files, to be read where a prepared set would be."""

    path: Path
    count: int

    def __len__(self) -> int:
        return self.count

    def read(self, i: int) -> bytes:
        return (self.path / f"{i}.jpg").read_bytes()


def write_jpegs(folder: Path, images: np.ndarray) -> Jpegs:
    """uint8 (N, 1, H, W) as JPEG files of several shapes, enlarged; color comes from the neighbors in the set."""
    folder.mkdir(parents=True)
    channels = np.concatenate([images, np.roll(images, 1, 0), np.roll(images, 2, 0)], axis=1)
    for i, pixels in enumerate(channels.transpose(0, 2, 3, 1)):
        large = Image.fromarray(pixels).resize((40 + i % 30, 60 - i % 23), Image.Resampling.BICUBIC)
        large.save(folder / f"{i}.jpg", quality=90)
    return Jpegs(folder, len(images))
