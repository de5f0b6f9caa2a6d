"""CIFAR-10 and CIFAR-100 from the official Python pickles."""

from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from seval.data.image_set import ImageSet, Part
from seval.data.sources.archive import gather
from seval.data.sources.arrays import text
from seval.data.sources.fetch import ARCHIVES
from seval.data.sources.raw import AGAIN, Raw, Source, labels_in, pixels_in, provenance, shown, unpickle
from seval.errors import DataError


class _Cifar(NamedTuple):
    name: str
    folder: str
    train: tuple[str, ...]
    test: str
    meta: str
    key: str  # of the labels in a batch
    classes: int
    largest: int  # bytes that a file of images can have, twice those of the published ones or so
    mean: tuple[float, ...]
    std: tuple[float, ...]


_CIFAR10 = _Cifar(
    name="cifar10",
    folder="cifar-10-batches-py",
    train=tuple(f"data_batch_{k}" for k in range(1, 6)),
    test="test_batch",
    meta="batches.meta",
    key="labels",
    classes=10,
    largest=1 << 26,
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2471, 0.2435, 0.2616),
)
_CIFAR100 = _Cifar(
    name="cifar100",
    folder="cifar-100-python",
    train=("train",),
    test="test",
    meta="meta",
    key="fine_labels",
    classes=100,
    largest=1 << 28,
    mean=(0.5071, 0.4865, 0.4409),
    std=(0.2673, 0.2564, 0.2762),
)


def read(cifar: _Cifar, raw: Path) -> ImageSet:
    """CIFAR-10, or CIFAR-100 with its 100 fine labels, from the archive in `raw`, or from its unpacked folder in there.

    The training images of CIFAR-10 are those of data_batch_1 to 5, in this order.
    """
    archive = ARCHIVES[cifar.name][0].name
    limits = dict.fromkeys((*cifar.train, cifar.test), cifar.largest) | {cifar.meta: 1 << 20}
    files = gather(raw, cifar.folder, archive, limits, "*batch_*")
    key = cifar.key.replace("labels", "label_names")
    names = unpickle(files[cifar.meta]).get(key)
    class_names = tuple(map(text, names)) if isinstance(names, list | tuple) else ()
    if len(class_names) != cifar.classes or not all(name and name.isprintable() for name in class_names):
        raise DataError(f"{files[cifar.meta].where} must hold {cifar.classes} {key}; {AGAIN}")
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
            "source": f"https://www.cs.toronto.edu/~kriz/cifar.html, {archive}",
            "license": "none stated by its authors",
            "credit": "A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, technical report, 2009",
        }
        | provenance(files, _published(cifar)),
    )


def _batch(cifar: _Cifar, file: Raw, label: str) -> Part:
    batch = unpickle(file)
    if (found := text(batch.get("batch_label", label))) != label:
        raise DataError(f"{file.where} says it is the {shown(found)}, not the {label}: files were swapped; {AGAIN}")
    images = pixels_in(batch, 32, file.where)
    return Part(images, labels_in(batch, cifar.key, file.where, count=len(images), low=0, high=cifar.classes - 1))


def _published(cifar: _Cifar) -> dict[str, str]:
    """MD5 of the official files."""
    from torchvision.datasets import CIFAR10, CIFAR100  # here, since it is slow to import

    theirs = CIFAR100 if cifar is _CIFAR100 else CIFAR10
    listed = (*theirs.train_list, *theirs.test_list, (theirs.meta["filename"], theirs.meta["md5"]))
    return {name: md5 for name, md5 in listed}


CIFAR10 = Source(partial(read, _CIFAR10), "cifar-10-python.tar.gz", ARCHIVES["cifar10"])
CIFAR100 = Source(partial(read, _CIFAR100), "cifar-100-python.tar.gz", ARCHIVES["cifar100"])
