"""STL-10 from its official binary files."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from seval.data.blocks import BLOCK_BYTES, Blocks
from seval.data.image_set import ImageSet, Part
from seval.data.sources.archive import gather
from seval.data.sources.fetch import ARCHIVES
from seval.data.sources.raw import AGAIN, Raw, Source, provenance
from seval.errors import DataError

_ARCHIVE, _NAMES = "stl10_binary.tar.gz", "class_names.txt"
#: The files and the most bytes they can have: at most twice those of the published ones, or so.
_LIMITS = {"train_X.bin": 1 << 28, "train_y.bin": 1 << 16, "test_X.bin": 1 << 29, "test_y.bin": 1 << 16}
_LIMITS |= {"unlabeled_X.bin": 1 << 32, _NAMES: 1 << 16}
_CLASSES = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")
_SIDE, _IMAGE = 96, 3 * 96 * 96


def read(raw: Path) -> ImageSet:
    """STL-10 at its 96 x 96 pixels from `raw`/stl10_binary.tar.gz, or from `raw`/stl10_binary.

    The unlabeled images have label -1. Mean and standard deviation are those of CIFAR-10, as in the published code.
    All images are `Blocks`: they take 3 GB.
    """
    from torchvision.datasets import STL10 as THEIRS  # here, since it is slow to import

    files = gather(raw, "stl10_binary", _ARCHIVE, _LIMITS, "*.bin", optional=(_NAMES,))
    parts = {}
    for name in ("train", "test"):
        images = _images(files[f"{name}_X.bin"])
        parts[name] = Part(images, _labels(files[f"{name}_y.bin"], len(images)))
    unlabeled = _images(files["unlabeled_X.bin"])
    return ImageSet(
        name="stl10",
        **parts,
        unlabeled=Part(unlabeled, np.full(len(unlabeled), -1)),
        class_names=_class_names(files),
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2471, 0.2435, 0.2616),
        attributes={
            "source": "https://cs.stanford.edu/~acoates/stl10, stl10_binary.tar.gz",
            "license": "none stated by its authors; the images are from ImageNet",
            "credit": "A. Coates, H. Lee, A. Y. Ng, An Analysis of Single Layer Networks in Unsupervised Feature "
            "Learning, AISTATS, 2011",
            "statistics_of": "cifar10",
        }
        | provenance(files, dict((*THEIRS.train_list, *THEIRS.test_list))),
    )


def _images(file: Raw) -> Blocks:
    """The images (N, 3, 96, 96) of a file, which holds the columns of each plane one after the other."""
    count, rest = divmod(file.size, _IMAGE)
    if rest or not count:
        raise DataError(f"{file.where} is truncated: its {file.size} bytes are not images of {_IMAGE}; {AGAIN}")

    def blocks() -> Iterator[np.ndarray]:
        with file.open() as opened:
            while block := opened.read(BLOCK_BYTES // _IMAGE * _IMAGE):
                if len(block) % _IMAGE:
                    raise DataError(f"{file.where} changed while it was read; {AGAIN}")
                yield np.frombuffer(block, np.uint8).reshape(-1, 3, _SIDE, _SIDE).transpose(0, 1, 3, 2)

    return Blocks((count, 3, _SIDE, _SIDE), blocks)


def _labels(file: Raw, count: int) -> np.ndarray:
    labels = np.frombuffer(file.content(), np.uint8).astype(np.int64) - 1
    if len(labels) != count or labels.min() < 0 or labels.max() >= len(_CLASSES):
        raise DataError(f"{file.where} must hold {count} labels in 1..10, one byte each; {AGAIN}")
    return labels


def _class_names(files: Mapping[str, Raw]) -> tuple[str, ...]:
    if _NAMES not in files:
        return _CLASSES
    names = tuple(name for _, line in files[_NAMES].lines() for name in line.split())
    if len(names) != len(_CLASSES) or not all(name.isprintable() for name in names):
        raise DataError(f"{files[_NAMES].where} must hold {len(_CLASSES)} class names, but holds {len(names)}; {AGAIN}")
    return names


STL10 = Source(read, _ARCHIVE, ARCHIVES["stl10"])
