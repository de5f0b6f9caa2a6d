"""What every part of a prepared file must be, and how a value becomes an attribute of it."""

from __future__ import annotations

import json

import h5py
import numpy as np

from seval.data.parts import DataError, ImageSet, Part, Stream, dtype_of


def check(images: ImageSet, wrong: str, todo: str) -> None:
    """dtypes, shapes and label range of a set; raises `DataError`."""
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
    channels = 3 if images.train.is_encoded else images.train.images.shape[1]
    if len(images.mean) != channels or len(images.std) != channels or not min(images.std) > 0:
        raise DataError(f"{wrong}: mean {images.mean} and std {images.std} do not fit {channels} channels; {todo}")


def _pixel_fault(name: str, part: Part, train: Part) -> str:
    """What is wrong with the images of a part, or nothing."""
    images = part.images
    if part.is_encoded != train.is_encoded:
        return f"of {name} and train, one has encoded images and the other pixels"
    if part.is_encoded:
        at = images.offsets
        if at.dtype != np.int64 or at.ndim != 1 or len(at) < 2 or at[0] or np.diff(at).min() < 1:
            return f"{name}/offsets must be int64 (N + 1,) and rise from 0"
        return ""
    if dtype_of(images) != np.uint8 or len(images.shape) != 4 or not size_in_bytes(images):
        return f"{name}/images must be uint8 (N, c, H, W), but is {dtype_of(images)} {images.shape}"
    if images.shape[1:] != train.images.shape[1:]:
        return f"{name} has images of {images.shape[1:]}, but train of {train.images.shape[1:]}"
    return ""


def size_in_bytes(array: np.ndarray | Stream) -> int:
    return int(np.prod(array.shape, dtype=np.int64)) * dtype_of(array).itemsize


def text(value: object) -> np.ndarray:
    """JSON as a string of fixed length: one of variable length lies in a heap that HDF5 does not checksum."""
    encoded = json.dumps(value, ensure_ascii=False).encode()
    return np.array(encoded, dtype=h5py.string_dtype("utf-8", len(encoded)))


def attribute(owner: h5py.File | h5py.Dataset, key: str) -> object:
    if key not in owner.attrs:
        raise LookupError(f"{owner.name} lacks the attribute {key}")
    value = owner.attrs[key]
    return json.loads(value if isinstance(value, str) else bytes(value).decode())
