"""Images as arrays of an .npz file, with the names of MedMNIST."""

from pathlib import Path

import numpy as np
from PIL import Image

from seval.data.sources.arrays import read_npz
from seval.data.sources.own import PARTS, Item, Listing, class_name
from seval.data.sources.raw import on_disk, reading
from seval.errors import DataError
from seval.text import short

_NAMES = {"train": "train", "valid": "val", "test": "test", "unlabeled": "unlabeled"}  # of the arrays of each part
_LARGEST = 1 << 37  # bytes
_DENSEST = 1100  # bytes of an array in a byte of the file: what deflate can do
_AGAIN = "write it with numpy.savez"


class Arrays:
    """Reads images by the name of their array and their row; see `own.Reader`."""

    def __init__(self, images: dict[str, np.ndarray]) -> None:
        self.images = images

    def version(self, where: str) -> tuple[int, int]:
        """All arrays are in memory."""
        return 0, 0

    def content(self, where: str) -> bytes:
        """There are no files."""
        raise ValueError("it is no file")

    def picture(self, where: str) -> tuple[Image.Image, bool]:
        name, _, row = where[:-1].partition("[")
        return Image.fromarray(np.ascontiguousarray(self.images[name][int(row)])), False


def read_arrays(path: Path) -> Listing:
    """The images of train_images, val_images, test_images and unlabeled_images, uint8 (N, H, W) or (N, H, W, 3).

    All but the last have labels, such as train_labels: whole numbers (N,) or (N, 1) from 0 up. class_names is text
    (C,). Raises `DataError`, `OSError` and `MemoryError`.
    """
    file = on_disk(path, _LARGEST)
    keys = tuple(f"{name}_{kind}" for name in _NAMES.values() for kind in ("images", "labels"))
    limit = min(_LARGEST, _DENSEST * file.size)
    with reading(path, "is no .npz of plain arrays", _AGAIN, file.size), file.start() as opened:
        arrays = read_npz(opened, keys, limit, texts=("class_names",))
    if "train_images" not in arrays:
        raise DataError(f"{path} has no array train_images; its arrays must be {', '.join(keys)}, class_names")
    names = _class_names(path, arrays.get("class_names"))
    images, items = {}, []
    for part in PARTS:
        name = _NAMES[part]
        if (found := arrays.get(f"{name}_images")) is None or not len(found):
            continue
        images[f"{name}_images"] = _images(path, f"{name}_images", found)
        labels = [""] * len(found)
        if part != "unlabeled":
            labels = _labels(path, f"{name}_labels", arrays.get(f"{name}_labels"), len(found), names)
        items += [Item(part, label, f"{name}_images[{i}]") for i, label in enumerate(labels)]
    used, notes = {item.label for item in items}, []
    if empty := [name for name in names or () if name not in used]:
        notes = [f"note: {len(empty)} of class_names have no images, such as {short(empty[0])}: no classes"]
    return Listing(Arrays(images), items, [], notes, f"npz {path.name}")


def _class_names(path: Path, found: np.ndarray | None) -> list[str] | None:
    if found is None:
        return None
    try:
        names = [class_name(str(name)) for name in found.tolist()]
    except ValueError as error:
        raise DataError(f"{path}: class_names: {error}") from None
    if found.ndim != 1 or len(set(names)) < len(names):
        raise DataError(f"{path} must hold class_names as different texts (C,), but has {short(names)}")
    return names


def _images(path: Path, name: str, found: np.ndarray) -> np.ndarray:
    found = found[..., 0] if found.ndim == 4 and found.shape[3] == 1 else found
    if found.dtype != np.uint8 or found.ndim not in (3, 4) or (found.ndim == 4 and found.shape[3] != 3):
        raise DataError(
            f"{path} has {name} {found.dtype} {found.shape}, but images must be uint8 (N, H, W) or (N, H, W, 3)"
        )
    if not found.size:
        raise DataError(f"{path} has {name} {found.shape}, which are images without pixels")
    return found


def _labels(path: Path, name: str, found: np.ndarray | None, count: int, names: list[str] | None) -> list[str]:
    """The name of the class of each image, which is its number where there are no `names`."""
    if found is None:
        raise DataError(f"{path} has no array {name}; images without labels belong into unlabeled_images")
    flat = found[:, 0] if found.ndim == 2 and found.shape[1] == 1 else found
    if flat.dtype.kind not in "iu" or flat.shape != (count,):
        raise DataError(
            f"{path} has {name} {found.dtype} {found.shape}, "
            f"but labels must be whole numbers ({count},) or ({count}, 1)"
        )
    low, high = int(flat.min()), int(flat.max())
    if low < 0 or (names is not None and high >= len(names)):
        within = "from 0 up" if names is None else f"in 0..{len(names) - 1}, as there are {len(names)} class_names"
        raise DataError(f"{path} has {name} from {low} to {high}, but labels must lie {within}")
    return [str(label) if names is None else names[label] for label in flat.tolist()]
