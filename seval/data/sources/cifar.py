"""CIFAR-10 and CIFAR-100 from the official Python pickles."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from seval.data.image_set import ImageSet, Part
from seval.data.sources.fetch import ARCHIVES
from seval.data.sources.raw import AGAIN, Raw, Source, decode_text, gather, labels_in, pixels_in, provenance, unpickle
from seval.errors import DataError


class _Cifar(NamedTuple):
    name: str
    folder: str
    archive: str
    train: tuple[str, ...]
    test: str
    meta: str
    labels: str  # key of a batch
    class_names: str  # key of the meta file
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


_CIFAR10 = _Cifar(
    name="cifar10",
    folder="cifar-10-batches-py",
    archive="cifar-10-python.tar.gz",
    train=tuple(f"data_batch_{k}" for k in range(1, 6)),
    test="test_batch",
    meta="batches.meta",
    labels="labels",
    class_names="label_names",
    classes=10,
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2471, 0.2435, 0.2616),
)
_CIFAR100 = _Cifar(
    name="cifar100",
    folder="cifar-100-python",
    archive="cifar-100-python.tar.gz",
    train=("train",),
    test="test",
    meta="meta",
    labels="fine_labels",
    class_names="fine_label_names",
    classes=100,
    mean=(0.5071, 0.4865, 0.4409),
    std=(0.2673, 0.2564, 0.2762),
)


def read_cifar10(raw: Path) -> ImageSet:
    """CIFAR-10 from `raw`/cifar-10-python.tar.gz, or from `raw`/cifar-10-batches-py.

    Training images are those of data_batch_1 to 5, in this order. `official` says whether every file is the published
    one; others are taken as they are. Raises `DataError` for a file that is missing, truncated or of another format.
    """
    return _read(_CIFAR10, raw)


def read_cifar100(raw: Path) -> ImageSet:
    """CIFAR-100 with its 100 fine labels from `raw`/cifar-100-python.tar.gz, or from `raw`/cifar-100-python.

    `official` and errors are as for CIFAR-10.
    """
    return _read(_CIFAR100, raw)


def _read(cifar: _Cifar, raw: Path) -> ImageSet:
    files = gather(raw, cifar.folder, cifar.archive, (*cifar.train, cifar.test, cifar.meta), "*batch_*")
    names = unpickle(files[cifar.meta]).get(cifar.class_names)
    names = list(map(decode_text, names)) if isinstance(names, list) else []
    class_names = tuple(name for name in names if isinstance(name, str))
    if not len(names) == len(class_names) == cifar.classes:
        raise DataError(f"{files[cifar.meta].where} must hold {cifar.classes} {cifar.class_names}; {AGAIN}")
    count = len(cifar.train)
    batches = [_batch(cifar, files[n], f"training batch {k} of {count}") for k, n in enumerate(cifar.train, start=1)]
    images, labels = (np.concatenate(arrays) for arrays in zip(*(batch[:2] for batch in batches), strict=True))
    return ImageSet(
        name=cifar.name,
        train=Part(images, labels),
        test=_batch(cifar, files[cifar.test], "testing batch 1 of 1"),
        class_names=class_names,
        mean=cifar.mean,
        std=cifar.std,
        attributes={
            "source": f"https://www.cs.toronto.edu/~kriz/cifar.html, {cifar.archive}",
            "license": "none stated by its authors",
            "credit": "A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, technical report, 2009",
        }
        | provenance(files, _published(cifar)),
    )


def _batch(cifar: _Cifar, file: Raw, label: str) -> Part:
    batch = unpickle(file)
    if (found := decode_text(batch.get("batch_label", label))) != label:
        raise DataError(f"{file.where} says it is the {found}, not the {label}: files were swapped; {AGAIN}")
    images = pixels_in(batch, 32, file.where)
    return Part(images, labels_in(batch, cifar.labels, file.where, count=len(images), low=0, high=cifar.classes - 1))


def _published(cifar: _Cifar) -> dict[str, str]:
    """MD5 of the official files."""
    from torchvision.datasets import CIFAR10, CIFAR100  # here, since it is slow to import

    theirs = CIFAR100 if cifar is _CIFAR100 else CIFAR10
    return {
        name: md5
        for name, md5 in (*theirs.train_list, *theirs.test_list, (theirs.meta["filename"], theirs.meta["md5"]))
    }


CIFAR10 = Source(read_cifar10, _CIFAR10.archive, ARCHIVES["cifar10"])
CIFAR100 = Source(read_cifar100, _CIFAR100.archive, ARCHIVES["cifar100"])
