"""One HDF5 layout for every image set, its writer, reader and verifier.

Groups `train`, `test` and, where a set has one, `unlabeled` hold `images` uint8 (N, c, H, W) and `labels` int64 (N,).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from seval.config import defaults

FORMAT = 1  # of the layout; raise it when a reader of the old one would misread the new one
PARTS = ("train", "test", "unlabeled")
_CHUNK_BYTES = 1 << 20
#: Attributes of the file beside those that have a field of their own in `ImageSet`.
_ATTRIBUTES = ("source", "license", "credit", "sources_sha256", "official", "class_counts")


class DataError(ValueError):
    """An image set or a raw file that cannot be used; one line: the file, what is wrong, what to do."""


class Part(NamedTuple):
    """Images uint8 (N, c, H, W) and labels int64 (N,); -1 is unknown, in the unlabeled part only."""

    images: np.ndarray
    labels: np.ndarray


class ImageSet(NamedTuple):
    """A prepared set. `mean` and `std` are per channel, on the scale where a pixel lies in [0, 1]."""

    name: str
    train: Part
    test: Part
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    attributes: Mapping[str, object]  # source, license, credit, sources_sha256, official; class_counts once written
    unlabeled: Part | None = None
    sha256: Mapping[str, str] = {}  # "train/images" -> digest over dtype, shape and bytes, as stored in the file

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def parts(self) -> dict[str, Part]:
        """The parts this set has, by name."""
        return {name: part for name in PARTS if (part := getattr(self, name)) is not None}


def data_file(name: str, root: str | Path | None = None) -> Path:
    """ROOT/NAME.h5, where a root left at its default gives way to the environment variable SEVAL_DATA."""
    default = defaults().DATASET.ROOT
    root = default if root is None else root
    if str(root) == default:
        root = os.environ.get("SEVAL_DATA") or root
    return Path(root) / f"{name}.h5"


def digest(array: np.ndarray) -> str:
    """SHA-256 over dtype, shape and bytes (C order)."""
    sha = hashlib.sha256(json.dumps([array.dtype.str, array.shape]).encode())
    sha.update(np.ascontiguousarray(array).data)
    return sha.hexdigest()


def class_counts(images: ImageSet) -> dict[str, list[int]]:
    """Images of every class, by part; images of unknown class are not counted."""
    return {
        name: np.bincount(part.labels[part.labels >= 0], minlength=images.num_classes).tolist()
        for name, part in images.parts.items()
    }


def write(path: str | Path, images: ImageSet, compress: bool = False) -> None:
    """Write the set aside, then rename it: nothing half-made ever bears the final name.

    The same arrays give the same bytes, as far as one build of HDF5 and zlib is concerned.
    Raises `DataError` where the arrays do not follow the layout.
    """
    path = Path(path)
    _check(images, f"cannot write {path}", "mend its source")
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    options = {"fletcher32": True, "track_times": False}
    options |= {"compression": "gzip", "compression_opts": 9} if compress else {}
    try:
        # From this version of the format on, HDF5 checksums its own metadata too.
        with h5py.File(aside, "w", libver=("v110", "v110")) as file:
            for key, value in _header(images).items():
                file.attrs[key] = _text(value)
            for name, part in images.parts.items():
                for field, array in part._asdict().items():
                    rows = min(len(array), max(1, _CHUNK_BYTES * len(array) // array.nbytes))
                    chunks = (rows, *array.shape[1:])
                    stored = file.create_dataset(f"{name}/{field}", data=array, chunks=chunks, **options)
                    stored.attrs["sha256"] = _text(digest(array))
        with open(aside, "rb") as file:
            os.fsync(file.fileno())
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def read(path: str | Path) -> ImageSet:
    """The whole set, after what can be checked cheaply: format, attributes, HDF5 checksums, dtypes, shapes, labels.

    Raises `DataError` where the file is missing, is not such a file, or fails a check.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(_missing(path))
    again = f"write it again: {remedy(path)}"
    try:
        with h5py.File(path, "r") as file:
            if (version := _attribute(file, "format")) != FORMAT:
                raise DataError(f"{path} is of format {version}, but this code reads format {FORMAT}; {again}")
            images = _load(file)
        _check(images, f"{path} is damaged", again)
        return images
    except DataError:
        raise
    # What HDF5, JSON and NumPy raise on altered bytes depends on where they lie; it is all the same to the user.
    except (OSError, LookupError, ValueError, RuntimeError, TypeError, AttributeError, MemoryError) as error:
        raise DataError(f"{path} is damaged, incomplete or not HDF5 ({one_line(error)}); {again}") from None


def verify(path: str | Path) -> ImageSet:
    """`read`, and then in full: every SHA-256 and class count, and mean and std against the pixels.

    Published channel statistics describe the official images, so they are compared only where the set is official.
    """
    path = Path(path)
    images = read(path)
    again = f"write it again: {remedy(path)}"
    for key, array in _arrays(images).items():
        if digest(array) != images.sha256[key]:
            raise DataError(f"{path} was altered: {key} does not match its SHA-256; {again}")
    if class_counts(images) != images.attributes["class_counts"]:
        raise DataError(f"{path} was altered: its class counts do not match its labels; {again}")
    if images.attributes["official"]:
        mean, std = statistics(images.train.images)
        for what, given, measured in (("mean", images.mean, mean), ("std", images.std, std)):
            if not np.allclose(given, measured, rtol=0, atol=1e-3):
                raise DataError(f"{path} was altered: its {what} is {given}, but its pixels have {measured}; {again}")
    return images


def statistics(images: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of uint8 images (N, c, H, W), on the scale of [0, 1]."""
    levels = np.arange(256) / 255
    mean, std = [], []
    for channel in range(images.shape[1]):  # over the histogram: exact, and no float copy of the images
        share = np.bincount(images[:, channel].ravel(), minlength=256) / images[:, channel].size
        mean.append(float(share @ levels))
        std.append(float(np.sqrt(share @ (levels - mean[-1]) ** 2)))
    return tuple(mean), tuple(std)


def remedy(path: Path) -> str:
    """The command that writes `path`."""
    here = "" if path == data_file(path.stem) else f" --root {path.parent}"
    return f"python repro/prepare.py {path.stem}{here}"


def _missing(path: Path) -> str:
    from seval.data.sources import SOURCES  # here, since sources builds on this module

    if path.stem not in SOURCES:
        return f"no file {path}, and {path.stem!r} is not a set this code can prepare; it can: {', '.join(SOURCES)}"
    return (
        f"no file {path}; write it with `{remedy(path)} --download`, or put {SOURCES[path.stem].files} "
        f"into a folder DIR and run `{remedy(path)} --raw DIR`"
    )


def _header(images: ImageSet) -> dict[str, object]:
    counts = {"class_counts": class_counts(images)}
    fields = {key: getattr(images, key) for key in ("name", "class_names", "mean", "std")}
    return {"format": FORMAT} | fields | {key: (images.attributes | counts)[key] for key in _ATTRIBUTES}


def _load(file: h5py.File) -> ImageSet:
    fields = {key: _attribute(file, key) for key in ("name", "class_names", "mean", "std")}
    fields |= {key: tuple(value) for key, value in fields.items() if key != "name"}
    parts, sha256 = {}, {}
    for name in PARTS:
        if name != "unlabeled" or name in file:
            stored = {field: file[f"{name}/{field}"] for field in Part._fields}
            parts[name] = Part(**{field: data[()] for field, data in stored.items()})
            sha256 |= {f"{name}/{field}": _attribute(data, "sha256") for field, data in stored.items()}
    attributes = {key: _attribute(file, key) for key in _ATTRIBUTES}
    return ImageSet(**fields, **parts, attributes=attributes, sha256=sha256)


def _check(images: ImageSet, wrong: str, todo: str) -> None:
    """dtypes, shapes and label range of a set; raises `DataError`."""
    channels = images.train.images.shape[1:2]
    for name, (pixels, labels) in images.parts.items():
        lowest = -1 if name == "unlabeled" else 0
        if pixels.dtype != np.uint8 or pixels.ndim != 4 or not pixels.size:
            fault = f"{name}/images must be uint8 (N, c, H, W), but is {pixels.dtype} {pixels.shape}"
        elif labels.dtype != np.int64 or labels.shape != pixels.shape[:1]:
            fault = f"{name}/labels must be int64 ({len(pixels)},), but is {labels.dtype} {labels.shape}"
        elif pixels.shape[1:] != images.train.images.shape[1:]:
            fault = f"{name} has images of {pixels.shape[1:]}, but train of {images.train.images.shape[1:]}"
        elif labels.min() < lowest or labels.max() >= images.num_classes:
            fault = (
                f"{name}/labels run from {labels.min()} to {labels.max()}, "
                f"but must lie in {lowest}..{images.num_classes - 1}"
            )
        else:
            continue
        raise DataError(f"{wrong}: {fault}; {todo}")
    if (len(images.mean),) != channels or (len(images.std),) != channels or not min(images.std) > 0:
        raise DataError(f"{wrong}: mean {images.mean} and std {images.std} do not fit {channels[0]} channels; {todo}")


def _arrays(images: ImageSet) -> dict[str, np.ndarray]:
    return {f"{name}/{field}": array for name, part in images.parts.items() for field, array in part._asdict().items()}


def _text(value: object) -> np.ndarray:
    """JSON as a string of fixed length: one of variable length lies in a heap that HDF5 does not checksum."""
    encoded = json.dumps(value, ensure_ascii=False).encode()
    return np.array(encoded, dtype=h5py.string_dtype("utf-8", len(encoded)))


def _attribute(owner: h5py.File | h5py.Dataset, key: str) -> object:
    if key not in owner.attrs:
        raise LookupError(f"{owner.name} lacks the attribute {key}")
    value = owner.attrs[key]
    return json.loads(value if isinstance(value, str) else bytes(value).decode())


def one_line(error: Exception) -> str:
    """What an error of another library says, for a line of ours."""
    return " ".join(str(error).split()) or type(error).__name__
