"""Stand-ins for files that the tests cannot download, made of the real images in data/tiny.h5."""

from __future__ import annotations

import pickle
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seval.data.blocks import Blocks, blocks_of
from seval.data.image_set import Encoded, ImageSet
from seval.errors import DataError

ENCODED_SIDE = 36  # to which the tests decode encoded images
TINY = Path(__file__).resolve().parents[1] / "data" / "tiny.h5"
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def fails(function, *arguments, **options) -> str:
    """The message of the `DataError` that the call must raise, on one line."""
    with pytest.raises(DataError) as caught:
        function(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def whole(array: np.ndarray | Blocks | Encoded) -> np.ndarray:
    """All of it in memory; of encoded images their bytes."""
    return np.concatenate(list(blocks_of(array.content() if isinstance(array, Encoded) else array)))


def same(a: ImageSet, b: ImageSet) -> bool:
    """Whether two sets hold the same, in memory or in blocks."""
    plain = [s._replace(train=None, test=None, unlabeled=None) for s in (a, b)]
    arrays = [{key: whole(array) for key, array in s.arrays().items()} for s in (a, b)]
    equal = arrays[0].keys() == arrays[1].keys() and all(np.array_equal(x, arrays[1][k]) for k, x in arrays[0].items())
    return plain[0] == plain[1] and equal


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


def write_cifar100(raw: Path, tiny: ImageSet, per_class: int = 3, test_per_class: int = 1) -> Path:
    """`raw`/cifar-100-python as Python 2 wrote it, class c made of images of class c % 10 of tiny, shuffled."""
    folder = raw / "cifar-100-python"
    folder.mkdir(parents=True, exist_ok=True)
    splits = ("train", "training", tiny.train, per_class), ("test", "testing", tiny.test, test_per_class)
    for name, kind, part, count in splits:
        images, labels = _of_classes(part, 100, count)
        content = {
            b"filenames": [f"thing_s_{i:06d}.png".encode() for i in range(len(labels))],
            b"batch_label": f"{kind} batch 1 of 1".encode(),
            b"fine_labels": labels.tolist(),
            b"coarse_labels": (labels // 5).tolist(),
            b"data": as_rgb(images, 32).reshape(len(labels), -1),
        }
        _pickle(folder / name, content)
    fine = [f"fine_{c}".encode() for c in range(100)]
    _pickle(folder / "meta", {b"fine_label_names": fine, b"coarse_label_names": [f"c_{c}".encode() for c in range(20)]})
    return folder


def write_stl10(raw: Path, tiny: ImageSet, train: int = 30, test: int = 20, unlabeled: int = 40) -> Path:
    """`raw`/stl10_binary: planes column by column, labels from 1."""
    folder = raw / "stl10_binary"
    folder.mkdir(parents=True, exist_ok=True)
    for name, part, chosen in (
        ("train", tiny.train, slice(train)),
        ("test", tiny.test, slice(test)),
        ("unlabeled", tiny.train, slice(train, train + unlabeled)),
    ):
        columns = as_rgb(part.images[chosen], 96).transpose(0, 1, 3, 2)
        (folder / f"{name}_X.bin").write_bytes(columns.tobytes())
        if name != "unlabeled":
            (folder / f"{name}_y.bin").write_bytes((part.labels[chosen] + 1).astype(np.uint8).tobytes())
    (folder / "class_names.txt").write_text("airplane\nbird\ncar\ncat\ndeer\ndog\nhorse\nmonkey\nship\ntruck\n")
    return folder


def write_imagenet(folder: Path, tiny: ImageSet, side: int = 32, count: int = 40, form: str = "python2") -> dict:
    """Down-sampled ImageNet with `count` images a batch, long-tailed over the 1,000 classes, from 1,000 on with each
    of them; form python2, npz or a number, the protocol of a pickle of Python 3. Returns what was written: (data,
    labels from 1) by file name."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, written = np.random.RandomState(side), {}
    by_rank = rng.permutation(1000) + 1
    for k, name in enumerate([*(f"train_data_batch_{k}" for k in range(1, 11)), "val_data"]):
        images = as_rgb(tiny.train.images[k * count : (k + 1) * count], side).reshape(count, -1)
        labels = by_rank[np.minimum(rng.geometric(0.01, count), 1000) - 1]
        labels[:1000] = rng.permutation(1000) + 1 if count >= 1000 else labels
        content = {"data": images, "labels": labels.tolist()}
        content |= {"mean": images.mean(0)} if name.startswith("train") else {}
        if form == "npz":
            np.savez(folder / f"{name}.npz", **content)
        elif form == "python2":
            _pickle(folder / name, {key.encode(): value for key, value in content.items()})
        else:
            (folder / name).write_bytes(pickle.dumps(content, protocol=int(form)))
        written[name] = images, labels
    return written


def write_semi_aves(raw: Path, tiny: ImageSet, inside: int = 20, outside: int = 30) -> Path:
    """`raw`/semi_fgvc: real JPEG files of 1 to 4 images of each of 200 classes, one to test, and the four lists."""
    folder, rng = raw / "semi_fgvc", np.random.RandomState(0)
    images = iter(tiny.train.images[:, 0])

    def put(path: str, label: int) -> str:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(next(images)).convert("RGB").save(folder / path, "JPEG", quality=90)
        return f"{path} {label}\n"

    counts = rng.randint(1, 5, 200)
    train = [put(f"trainval_images/{c}/{i}.jpg", c) for c in range(200) for i in range(counts[c])]
    test = [put(f"test/{i}.jpg", c) for i, c in enumerate(rng.permutation(200))]
    known = [put(f"u_train_in/{i}.jpg", -1) for i in range(inside)]
    unknown = [put(f"u_train_out/{i}.jpg", -1) for i in range(outside)]
    for name, lines in (("l_train_val", train), ("test", test), ("u_train_in", known), ("u_train", known + unknown)):
        (folder / f"{name}.txt").write_text("".join(lines))
    return folder


def _of_classes(part, classes: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """`count` images for each of so many classes, class c from class c % 10 of the part, in one fixed random order."""
    members = [np.flatnonzero(part.labels == c) for c in range(10)]
    index = np.concatenate([members[c % 10][c // 10 * count :][:count] for c in range(classes)])
    order = np.random.RandomState(0).permutation(len(index))
    return part.images[index[order]], np.repeat(np.arange(classes), count)[order]


def as_cifar10(images: np.ndarray) -> np.ndarray:
    """`as_rgb` at 32 x 32."""
    return as_rgb(images, 32)


def as_rgb(images: np.ndarray, side: int) -> np.ndarray:
    """uint8 (N, c, H, W) to (N, 3, side, side): pixels repeated, then a black border; gray becomes three channels."""
    scale = side // max(images.shape[2:])
    large = images.repeat(scale, axis=2).repeat(scale, axis=3)
    gaps = [side - length for length in large.shape[2:]]
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


def slowly(source: Jpegs, index) -> np.ndarray:
    """What the published pipeline does: open, resize, to array, one image after another."""
    images = []
    for i in index:
        image = (
            Image.open(source.path / f"{i}.jpg")
            .convert("RGB")
            .resize((ENCODED_SIDE, ENCODED_SIDE), Image.Resampling.BILINEAR)
        )
        images.append(np.array(image).transpose(2, 0, 1))
    return np.stack(images)


class Malicious:
    """Its pickle calls `function` where it is read."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call
