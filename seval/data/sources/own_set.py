"""The set of a user's own images. It depends on their content alone: every form gives the same arrays."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from seval.data.blocks import Blocks
from seval.data.image_set import ImageSet, Part
from seval.data.pictures import encoded, pixels
from seval.data.sources.own import LARGEST_ARRAY, Item, Listing, Note, Reader, Wishes
from seval.data.sources.own_duplicates import SEED, with_test
from seval.data.sources.raw import frequency_rank
from seval.errors import DataError
from seval.text import short

_ROWS = 256  # images of a block
_LEAST_STD = 1 / 255  # of a channel that is the same everywhere
_MANY_CLASSES = 1000


def make(listing: Listing, seen: np.ndarray, wishes: Wishes, note: Note) -> ImageSet:
    """The set of the listed images, with what was `seen` (N,) of each. Raises `DataError`; `note` gets single lines."""
    items = with_test(listing.items, seen["digest"].tolist(), wishes, note)
    numbers = _numbers(items, note)
    labels = np.array([numbers[item.label] if item.label else -1 for item in items])
    size = _size(seen, wishes.side)
    channels = 1 if size and seen["gray"].all() else 3
    keys = [(digest, *item) for digest, item in zip(seen["digest"].tolist(), items, strict=True)]
    order = sorted(range(len(items)), key=keys.__getitem__)
    parts = {}
    for name, of in (("train", ("train", "valid")), ("test", ("test",)), ("unlabeled", ("unlabeled",))):
        if chosen := [i for i in order if items[i].part in of]:
            wheres = [items[i].where for i in chosen]
            images = _images(listing.reader, wheres, seen[chosen], size, channels)
            batch = np.array([1 + (items[i].part == "valid") for i in chosen], np.uint8)
            parts[name] = Part(images, labels[chosen], batch if name == "train" and batch.max() > 1 else None)
    measured = np.array([i for i in order if items[i].part in ("train", "unlabeled")])
    mean = seen["mean"][measured].mean(0)[:channels]
    std = np.sqrt(np.maximum(seen["square"][measured].mean(0)[:channels] - mean**2, _LEAST_STD**2))
    return ImageSet(
        name=wishes.name,
        **parts,
        class_names=tuple(sorted(numbers, key=numbers.__getitem__)),
        mean=tuple(mean.tolist()),
        std=tuple(std.tolist()),
        attributes=_attributes(listing, items, seen, wishes, size),
    )


def _size(seen: np.ndarray, side: int | None) -> tuple[int, int] | None:
    """Height and width of the stored arrays; None for a set that is stored as JPEG."""
    if side:
        return side, side
    height, width = int(seen["height"][0]), int(seen["width"][0])
    uniform = (seen["height"] == height).all() and (seen["width"] == width).all()
    return (height, width) if uniform and max(height, width) <= LARGEST_ARRAY else None


def _attributes(
    listing: Listing, items: Sequence[Item], seen: np.ndarray, wishes: Wishes, size: tuple[int, int] | None
) -> dict[str, object]:
    digests = hashlib.sha256("\n".join(sorted(digest.decode() for digest in seen["digest"])).encode()).hexdigest()
    resized = int(((seen["height"] != size[0]) | (seen["width"] != size[1])).sum()) if size else 0
    preparation = {
        "stored": f"arrays of {size[0]} x {size[1]}" if size else "jpeg",
        "resized": resized,
        "encoded_again": 0 if size else int((~seen["plain"]).sum()),
        "duplicates_allowed": wishes.allow_duplicates,
    }
    if wishes.test_portion:
        preparation |= {"test_portion": wishes.test_portion, "test_seed": SEED}
    return {
        "source": listing.source,
        "license": wishes.license,
        "credit": "unknown",
        "sources_sha256": {f"{len(items)} images": digests},
        "official": None,
        "preparation": preparation,
    }


def _images(
    reader: Reader, wheres: Sequence[str], seen: np.ndarray, size: tuple[int, int] | None, channels: int
) -> Blocks:
    """The images in this order, as arrays of `size` or as JPEG."""

    def read(i: int) -> np.ndarray:
        where, was = wheres[i], seen[i]
        try:
            if reader.version(where) != (was["size"], was["mtime"]):
                raise ValueError("it changed while the set was prepared")
            if size is None and was["plain"]:
                return np.frombuffer(reader.content(where), np.uint8)
            picture = reader.picture(where)[0]
            return pixels(picture, size, channels) if size else np.frombuffer(encoded(picture), np.uint8)
        except ValueError as error:
            raise DataError(f"{where}: {error}; run the same command again") from None

    def blocks() -> Iterator[np.ndarray]:
        for start in range(0, len(wheres), _ROWS):
            rows = [read(i) for i in range(start, min(start + _ROWS, len(wheres)))]
            yield np.stack(rows) if size else np.concatenate(rows)

    if size:
        return Blocks((len(wheres), channels, *size), blocks)
    lengths = [int(was["stored"]) or len(read(i)) for i, was in enumerate(seen)]
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    return Blocks((int(offsets[-1]),), blocks, offsets)


def _numbers(items: Sequence[Item], note: Note) -> dict[str, int]:
    """The number of each class: by falling count of training labels, ties by name."""
    counts = Counter(item.label for item in items if item.part == "train")
    if not counts:
        raise DataError("no image for training has a label; give train/CLASS/* (folder), or a path and a label (csv)")
    for part in ("test", "valid"):
        unknown = sorted({item.label for item in items if item.part == part} - counts.keys())
        if unknown:
            raise DataError(
                f"{len(unknown)} classes have images in {part}, but no labeled image in train, such as "
                f"{short(unknown[0])}: give each at least one, or remove it"
            )
    if len(counts) == 1:
        raise DataError(f"all labels are of one class, {short(next(iter(counts)))}; a classifier needs at least two")
    _check_names(counts)
    if few := sorted(name for name, count in counts.items() if count < 2):
        note(
            f"note: {len(few)} classes have fewer than two training labels, such as {short(few[0])}: "
            "nothing can be held out of them, as SEVAL does"
        )
    if len(counts) > _MANY_CLASSES:
        mean = counts.total() / len(counts)
        note(
            f"note: {len(counts)} classes, with {mean:.3g} training labels each on average; few labels limit all rules"
        )
    if not any(item.part == "unlabeled" for item in items):
        note("note: there are no unlabeled images, so that only supervised training is possible")
    names = sorted(counts)
    rank = frequency_rank(np.array([counts[name] for name in names]))
    return {name: int(number) for name, number in zip(names, rank, strict=True)}


def _check_names(names: Counter[str]) -> None:
    """Refuse two names that only differ by case: one of them is likely to be a mistake."""
    alike: dict[str, str] = {}
    for name in sorted(names):
        if (other := alike.setdefault(name.casefold(), name)) != name:
            raise DataError(f"the classes {short(other)} and {short(name)} differ only by case; rename one of them")
