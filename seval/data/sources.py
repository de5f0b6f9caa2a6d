"""Image sets read from their publishers' files: the only place that knows foreign formats.

The SHA-256 recorded are those of the unpacked files, so that it does not matter how they were packed.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import math
import pickle
import tarfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from seval.data.prepare import DataError, ImageSet, Part, one_line, statistics


class Source(NamedTuple):
    """How a set is made: `read(raw)` takes the folder of raw files, `download(raw)` fetches them into it."""

    read: Callable[[Path], ImageSet]
    download: Callable[[Path], None]
    files: str  # the official files, for people
    packaged: Path | None = None  # where an operating system's package puts them
    compress: bool = False


class _Raw(NamedTuple):
    content: bytes  # unpacked
    where: str  # for people


_CIFAR10_TRAIN = tuple(f"data_batch_{k}" for k in range(1, 6))
_CIFAR10_FILES = (*_CIFAR10_TRAIN, "test_batch", "batches.meta")
_CIFAR10_FOLDER, _CIFAR10_ARCHIVE = "cifar-10-batches-py", "cifar-10-python.tar.gz"

_FASHION_SHA256 = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
_FASHION_CLASSES = tuple("T-shirt/top,Trouser,Pullover,Dress,Coat,Sandal,Shirt,Sneaker,Bag,Ankle boot".split(","))

#: Images of every class in `tiny`: 1,500 labels, 3,000 unlabeled and 200 for validation fit.
TINY_TRAIN, TINY_TEST = 4700, 300
_AGAIN = "fetch it again from its publisher, or with --download"  # the end of most errors below


def cifar10(raw: Path) -> ImageSet:
    """CIFAR-10 from the official Python pickles in `raw`/cifar-10-batches-py, or from the official archive in `raw`.

    Training images are those of data_batch_1 to 5, in this order. `official` says whether every file is the published
    one; others are taken as they are. Raises `DataError` for a file that is missing, truncated or of another format.
    """
    files = _cifar10_files(raw)
    names = _unpickle(files["batches.meta"]).get("label_names")
    if not isinstance(names, list) or [type(n) for n in names] != [str] * 10:
        raise DataError(f"{files['batches.meta'].where} must hold 10 label_names; {_AGAIN}")
    batches = {name: _cifar10_batch(file) for name, file in files.items() if name != "batches.meta"}
    images, labels = (np.concatenate(arrays) for arrays in zip(*(batches[n] for n in _CIFAR10_TRAIN), strict=True))
    return ImageSet(
        name="cifar10",
        train=Part(images, labels),
        test=batches["test_batch"],
        class_names=tuple(names),
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2471, 0.2435, 0.2616),
        attributes={
            "source": "https://www.cs.toronto.edu/~kriz/cifar.html, cifar-10-python.tar.gz",
            "license": "none stated by its authors",
            "credit": "A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, technical report, 2009",
            "sources_sha256": {name: hashlib.sha256(file.content).hexdigest() for name, file in files.items()},
            "official": _is_official(files),
        },
    )


def fashion_mnist(raw: Path) -> ImageSet:
    """Fashion-MNIST, 28 x 28 gray, from the four IDX files, packed (.gz) or not, in `raw` or `raw`/FashionMNIST/raw.

    `official` says whether every file is the published one; others are taken as they are.
    Raises `DataError` for a file that is missing, truncated or of another format.
    """
    files = _fashion_files(raw)
    parts = []
    for part in ("train", "t10k"):
        images, label_file = _idx(files[f"{part}-images-idx3-ubyte"], 28, 28), files[f"{part}-labels-idx1-ubyte"]
        labels = _idx(label_file)
        if len(labels) != len(images) or labels.max() > 9:
            raise DataError(
                f"{label_file.where} must hold {len(images)} labels in 0..9, but holds {len(labels)} up to "
                f"{labels.max()}; {_AGAIN}"
            )
        parts.append(Part(images[:, None], labels.astype(np.int64)))
    sha256 = {name: hashlib.sha256(file.content).hexdigest() for name, file in files.items()}
    return ImageSet(
        name="fashion_mnist",
        train=parts[0],
        test=parts[1],
        class_names=_FASHION_CLASSES,
        mean=(0.28604,),
        std=(0.35302,),
        attributes={
            "source": "https://github.com/zalandoresearch/fashion-mnist",
            "license": "MIT, Copyright 2017 Zalando SE",
            "credit": "H. Xiao, K. Rasul, R. Vollgraf (Zalando Research), Fashion-MNIST, 2017, arXiv:1708.07747",
            "sources_sha256": sha256,
            "official": sha256 == _FASHION_SHA256,
        },
    )


def tiny(raw: Path) -> ImageSet:
    """A subset of Fashion-MNIST at 16 x 16, gray; its `credit` says which images and how they are made smaller."""
    whole = fashion_mnist(raw)
    parts = []
    for part, count in ((whole.train, TINY_TRAIN), (whole.test, TINY_TEST)):
        members = [np.flatnonzero(part.labels == c)[:count] for c in range(whole.num_classes)]
        if (least := min(map(len, members))) < count:
            raise DataError(f"Fashion-MNIST in {raw} has {least} images of a class, but tiny takes {count}; {_AGAIN}")
        chosen = np.sort(np.concatenate(members))
        parts.append(Part(_halve(part.images[chosen]), part.labels[chosen]))
    mean, std = statistics(parts[0].images)
    change = (
        f"the first {TINY_TRAIN} training and {TINY_TEST} test images of every class, in file order, padded with "
        "2 black pixels a side to 32 x 32, then the mean of 2 x 2 pixels, halves rounded up"
    )
    return whole._replace(
        name="tiny",
        train=parts[0],
        test=parts[1],
        mean=mean,
        std=std,
        attributes=whole.attributes | {"credit": f"{whole.attributes['credit']}; {change}"},
    )


def _halve(images: np.ndarray) -> np.ndarray:
    """(N, 1, 28, 28) to (N, 1, 16, 16), in integers and so exact everywhere."""
    padded = np.pad(images, ((0, 0), (0, 0), (2, 2), (2, 2)))
    total = padded.reshape(len(images), 1, 16, 2, 16, 2).sum((3, 5), dtype=np.uint16)
    return ((total + 2) // 4).astype(np.uint8)


def _cifar10_files(raw: Path) -> dict[str, _Raw]:
    """The official files by name, from their folder or, where there is none, from the archive."""
    folder, archive = raw / _CIFAR10_FOLDER, raw / _CIFAR10_ARCHIVE
    if not folder.is_dir() and (raw / "data_batch_1").is_file():
        folder = raw
    if folder.is_dir():
        if extra := sorted(p.name for p in folder.glob("data_batch_*") if p.name not in _CIFAR10_FILES):
            raise DataError(f"{folder / extra[0]} is no file of CIFAR-10: the folder holds something else; {_AGAIN}")
        files = {
            name: _Raw((folder / name).read_bytes(), str(folder / name))
            for name in _CIFAR10_FILES
            if (folder / name).is_file()
        }
    elif archive.is_file():
        files = _untar(archive)
    else:
        raise DataError(
            f"no CIFAR-10 in {raw}: it has neither {_CIFAR10_FOLDER} nor {_CIFAR10_ARCHIVE}; put one "
            "there, name another folder with --raw, or fetch it with --download"
        )
    return _complete(files, _CIFAR10_FILES, folder if folder.is_dir() else archive)


def _untar(archive: Path) -> dict[str, _Raw]:
    """The files of the archive by the last part of their names; nothing is written to disk."""
    try:
        with tarfile.open(archive, "r|gz") as tar:
            return {
                (name := Path(m.name).name): _Raw(tar.extractfile(m).read(), f"{name} in {archive}")
                for m in tar
                if m.isfile()
            }
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise DataError(f"{archive} is truncated or not a .tar.gz ({error}); {_AGAIN}") from None


class _ArraysOnly(pickle.Unpickler):
    """Unpickles numbers, text, containers and NumPy arrays; any other name in the file is refused, so nothing runs."""

    # What NumPy names in the pickle of an array, by the old and by the new protocol; NumPy 2 renamed `core`.
    _known = {"numpy.ndarray": np.ndarray, "numpy.dtype": np.dtype}
    for _core in ("numpy.core", "numpy._core"):
        _known[f"{_core}.multiarray._reconstruct"] = np.empty(1).__reduce__()[0]
        _known[f"{_core}.numeric._frombuffer"] = np.empty(1).__reduce_ex__(5)[0]

    def find_class(self, module: str, name: str) -> object:
        if (module, name) == ("_codecs", "encode"):  # Python 3 writes bytes so in protocol 2
            return lambda text, encoding: text
        if (known := self._known.get(f"{module}.{name}")) is None:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no image set needs")
        return known


def _unpickle(file: _Raw) -> dict[str, object]:
    try:
        found = _ArraysOnly(io.BytesIO(file.content), encoding="latin1").load()
        return {k.decode("latin1") if isinstance(k, bytes) else k: v for k, v in found.items()}
    except Exception as error:  # damaged pickles raise anything
        raise DataError(f"{file.where} is truncated or not a CIFAR-10 pickle ({one_line(error)}); {_AGAIN}") from None


def _cifar10_batch(file: _Raw) -> Part:
    batch = _unpickle(file)
    images, labels = batch.get("data"), batch.get("labels")
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.shape[1:] != (3072,) or not len(images):
        raise DataError(f"{file.where} must hold data uint8 (N, 3072); {_AGAIN}")
    if (
        not isinstance(labels, list)
        or len(labels) != len(images)
        or not all(isinstance(label, int) and 0 <= label < 10 for label in labels)
    ):
        raise DataError(f"{file.where} must hold a list of {len(images)} labels in 0..9; {_AGAIN}")
    return Part(images.reshape(-1, 3, 32, 32), np.array(labels, np.int64))


def _fashion_files(raw: Path) -> dict[str, _Raw]:
    """The four files by name, unpacked."""
    folder = raw / "FashionMNIST/raw" if (raw / "FashionMNIST/raw").is_dir() else raw
    paths = {
        name: path for name in _FASHION_SHA256 for path in (folder / f"{name}.gz", folder / name) if path.is_file()
    }  # unpacked ones win
    if not paths:
        raise DataError(
            f"no Fashion-MNIST in {raw}: put {_IDX_FILES} there, name another folder with --raw, "
            "or fetch them with --download"
        )
    files = {}
    for name, path in paths.items():
        try:
            content = path.read_bytes()
            files[name] = _Raw(gzip.decompress(content) if path.suffix == ".gz" else content, str(path))
        except (EOFError, OSError, zlib.error) as error:
            raise DataError(f"{path} is truncated or not a .gz ({one_line(error)}); {_AGAIN}") from None
    return _complete(files, _FASHION_SHA256, folder)


def _idx(file: _Raw, *item: int) -> np.ndarray:
    """uint8 (N, *item) in the IDX format: a magic number, the axes as big-endian uint32, the bytes."""
    count = int.from_bytes(file.content[4:8], "big")
    header = bytes((0, 0, 8, 1 + len(item))) + b"".join(axis.to_bytes(4, "big") for axis in (count, *item))
    size = len(header) + count * math.prod(item)
    if not file.content.startswith(header) or len(file.content) != size or not count:
        raise DataError(f"{file.where} is truncated or no IDX file of uint8 {('N', *item)}; {_AGAIN}")
    return np.frombuffer(file.content, np.uint8, offset=len(header)).reshape(count, *item)


def _complete(files: dict[str, _Raw], names: Iterable[str], where: Path) -> dict[str, _Raw]:
    """The files in the order of `names`; raises `DataError` where one is missing."""
    if missing := [name for name in names if name not in files]:
        raise DataError(f"{where} lacks {', '.join(missing)}; {_AGAIN}")
    return {name: files[name] for name in names}


def _is_official(cifar10: dict[str, _Raw]) -> bool:
    from torchvision.datasets import CIFAR10  # here, since it is slow to import

    published = dict([*CIFAR10.train_list, *CIFAR10.test_list, (CIFAR10.meta["filename"], CIFAR10.meta["md5"])])
    return published == {n: hashlib.md5(f.content, usedforsecurity=False).hexdigest() for n, f in cifar10.items()}


def _fetch(dataset: str, raw: Path) -> None:
    from torchvision import datasets  # here, since it is slow to import

    try:
        getattr(datasets, dataset)(str(raw), download=True)
    except Exception as error:  # networks, mirrors and torchvision's own checks raise anything
        raise DataError(f"cannot fetch {dataset} to {raw} ({one_line(error)}); put the official files there") from None


_IDX_FILES = ", ".join(f"{name}.gz" for name in _FASHION_SHA256)
_DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # package dataset-fashion-mnist
SOURCES = {
    "cifar10": Source(cifar10, lambda raw: _fetch("CIFAR10", raw), _CIFAR10_ARCHIVE),
    "fashion_mnist": Source(fashion_mnist, lambda raw: _fetch("FashionMNIST", raw), _IDX_FILES, _DEBIAN),
    "tiny": Source(tiny, lambda raw: _fetch("FashionMNIST", raw), _IDX_FILES, _DEBIAN, compress=True),
}
