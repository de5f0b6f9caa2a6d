"""Fashion-MNIST from its IDX files, and the subset of it that ships with the code."""

import gzip
import math
from pathlib import Path

import numpy as np

from seval.data.image_set import ImageSet, Part, statistics
from seval.data.sources.fetch import ARCHIVES
from seval.data.sources.raw import AGAIN, Raw, Source, in_memory, on_disk, provenance, reading, require, within
from seval.errors import DataError

FILES_SHA256 = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
_CLASSES = tuple("T-shirt/top,Trouser,Pullover,Dress,Coat,Sandal,Shirt,Sneaker,Bag,Ankle boot".split(","))
_LARGEST = {"images": 1 << 26, "labels": 1 << 17}  # bytes of an unpacked file; the published ones have 47 and 0.06 MB
_IDX_FILES = ", ".join(f"{name}.gz" for name in FILES_SHA256)
_DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # package dataset-fashion-mnist

#: Images of every class in `tiny`: 1,500 labels, 3,000 unlabeled and 200 for validation fit.
TINY_TRAIN, TINY_TEST = 4700, 300


def read(raw: Path) -> ImageSet:
    """Fashion-MNIST, 28 x 28 gray, from the four IDX files, packed (.gz) or not, in `raw` or `raw`/FashionMNIST/raw."""
    files = _files(raw)
    parts = []
    for part in ("train", "t10k"):
        images, label_file = _idx(files[f"{part}-images-idx3-ubyte"], 28, 28), files[f"{part}-labels-idx1-ubyte"]
        labels = _idx(label_file)
        if len(labels) != len(images) or labels.max() > 9:
            raise DataError(
                f"{label_file.where} must hold {len(images)} labels in 0..9, but holds {len(labels)} up to "
                f"{labels.max()}; {AGAIN}"
            )
        parts.append(Part(images[:, None], labels.astype(np.int64)))
    made = provenance(files)
    return ImageSet(
        name="fashion_mnist",
        train=parts[0],
        test=parts[1],
        class_names=_CLASSES,
        mean=(0.28604,),
        std=(0.35302,),
        attributes={
            "source": "https://github.com/zalandoresearch/fashion-mnist",
            "license": "MIT, Copyright 2017 Zalando SE",
            "credit": "H. Xiao, K. Rasul, R. Vollgraf (Zalando Research), Fashion-MNIST, 2017, arXiv:1708.07747",
        }
        | made
        | {"official": made["sources_sha256"] == FILES_SHA256},
    )


def read_tiny(raw: Path) -> ImageSet:
    """A subset of Fashion-MNIST at 16 x 16, gray; its `credit` says which images and how they are made smaller."""
    whole = read(raw)
    parts = []
    for part, count in ((whole.train, TINY_TRAIN), (whole.test, TINY_TEST)):
        members = [np.flatnonzero(part.labels == c)[:count] for c in range(whole.num_classes)]
        if (least := min(map(len, members))) < count:
            raise DataError(f"Fashion-MNIST in {raw} has {least} images of a class, but tiny takes {count}; {AGAIN}")
        chosen = np.sort(np.concatenate(members))
        parts.append(Part(_halve(part.pixels[chosen]), part.labels[chosen]))
    mean, std = statistics(parts[0].pixels)
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
        attributes={**whole.attributes, "credit": f"{whole.attributes['credit']}; {change}"},
    )


def _halve(images: np.ndarray) -> np.ndarray:
    """(N, 1, 28, 28) to (N, 1, 16, 16), in integers and so exact everywhere."""
    padded = np.pad(images, ((0, 0), (0, 0), (2, 2), (2, 2)))
    total = padded.reshape(len(images), 1, 16, 2, 16, 2).sum((3, 5), dtype=np.uint16)
    return ((total + 2) // 4).astype(np.uint8)


def _files(raw: Path) -> dict[str, Raw]:
    """The four files by name, unpacked."""
    folders = (raw / "FashionMNIST/raw", raw)  # torchvision's first
    paths = {
        name: path
        for name in FILES_SHA256
        for folder in folders
        for path in (folder / name, folder / f"{name}.gz")
        if path.exists() and not path.is_dir()
    }  # the last wins: packed files in `raw` itself are what --download fetches
    if not paths:
        raise DataError(
            f"no Fashion-MNIST in {raw}: put {_IDX_FILES} there, name another folder with --raw, "
            "or fetch them with --download"
        )
    files = {name: _unpacked(path) for name, path in paths.items()}
    return require(files, FILES_SHA256, next(iter(paths.values())).parent)


def _unpacked(path: Path) -> Raw:
    """The content of a file, never more than it can have, however small it is packed."""
    largest = _LARGEST["images" if "-images-" in path.name else "labels"]
    file = on_disk(path, largest)
    if path.suffix != ".gz":
        return file
    with reading(path, "is truncated or not a .gz", size=largest), file.start() as packed, gzip.open(packed) as opened:
        content = opened.read(largest + 1)
    within(len(content), largest, f"{path}, unpacked,")
    return in_memory(content, file.where)


def _idx(file: Raw, *item: int) -> np.ndarray:
    """uint8 (N, *item) in the IDX format: a magic number, the axes as big-endian uint32, the bytes."""
    content = file.content()
    count = int.from_bytes(content[4:8], "big")
    header = bytes((0, 0, 8, 1 + len(item))) + b"".join(axis.to_bytes(4, "big") for axis in (count, *item))
    size = len(header) + count * math.prod(item)
    if not content.startswith(header) or len(content) != size or not count:
        raise DataError(f"{file.where} is truncated or no IDX file of uint8 {('N', *item)}; {AGAIN}")
    return np.frombuffer(content, np.uint8, offset=len(header)).reshape(count, *item)


FASHION_MNIST = Source(read, _IDX_FILES, ARCHIVES["fashion_mnist"], packaged=_DEBIAN)
TINY = FASHION_MNIST._replace(read=read_tiny, compress=True)
