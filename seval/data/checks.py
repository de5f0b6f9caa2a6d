"""What must hold of every image set, before it is written and after it was read."""

import numpy as np

from seval.data.image_set import ImageSet, Part
from seval.errors import DataError
from seval.text import short

#: Attributes of the file beside those that have a field of their own in `ImageSet`.
ATTRIBUTES: dict[str, type | tuple[type, ...]] = {
    "source": str,
    "license": str,
    "credit": str,
    "sources_sha256": dict,
    "official": (bool, type(None)),
    "class_counts": dict,
    "statistics_of": str,
    "preparation": dict,
}
OPTIONAL = ("statistics_of", "preparation")  # of these attributes
_LARGEST = 1e6  # of a mean or std, on the scale where a pixel lies in [0, 1]


def check_arrays(images: ImageSet, wrong: str, todo: str, kind: type[DataError] = DataError) -> None:
    """Dtypes, shapes, labels and header of a set. Raises a `kind`, which begins with `wrong` and ends in `todo`."""
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
        if fault := fault or _header_fault(images):
            raise kind(f"{wrong}: {fault}; {todo}")


def _pixel_fault(name: str, part: Part, train: Part) -> str:
    """What is wrong with the images of a part, or nothing."""
    images, at = part.content, part.offsets
    if (at is None) != (train.offsets is None):
        return f"of {name} and train, only one has encoded images"
    if at is not None:
        if at.dtype != np.int64 or at.ndim != 1 or len(at) < 2 or at[0] or np.diff(at).min() < 1:
            return f"{name}/offsets must be int64 (N + 1,) and rise from 0"
        return ""
    if images.dtype != np.uint8 or len(images.shape) != 4 or not images.nbytes:
        return f"{name}/images must be uint8 (N, c, H, W), but is {images.dtype} {images.shape}"
    if images.shape[1:] != train.content.shape[1:]:
        return f"{name} has images of {images.shape[1:]}, but train of {train.content.shape[1:]}"
    return ""


def _header_fault(images: ImageSet) -> str:
    """What is wrong with the fields that are not arrays, or nothing."""
    channels = images.train.content.shape[1] if images.train.offsets is None else 3
    for key, least in (("mean", -_LARGEST), ("std", 1 / _LARGEST)):
        values = getattr(images, key)
        if len(values) != channels or not all(
            isinstance(v, int | float) and v is not True and least <= v <= _LARGEST for v in values
        ):
            kind = "numbers" if key == "mean" else "numbers above 0"
            return f"{key} {short(values)} do not fit {channels} channels: each needs one, of finite {kind}"
    names = images.class_names
    if not all(isinstance(name, str) and name.strip() for name in (images.name, *names)):
        return f"name {short(images.name)} and class_names {short(names)} must be text"
    if len(set(names)) < len(names):
        return f"class_names {short(names)} repeats {short(next(n for n in names if names.count(n) > 1))}"
    for key, value in images.attributes.items():
        if not isinstance(value, ATTRIBUTES.get(key, object)):
            return f"its {key} is {short(value)}"
    counts = images.attributes.get("class_counts")
    lists = counts.values() if isinstance(counts, dict) else ()
    if any(not isinstance(each, list) or len(each) != images.num_classes for each in lists):
        return f"its class_counts are not those of {images.num_classes} classes"
    return ""
