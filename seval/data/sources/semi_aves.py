"""Semi-Aves: birds of 200 labeled species, and unlabeled ones of the same and of other species, as JPEG files."""

import errno
import io
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from PIL.JpegImagePlugin import JpegImageFile
from tqdm import tqdm

from seval.data.blocks import Blocks
from seval.data.image_set import ImageSet, Part
from seval.data.sources.raw import Source, frequency_rank, on_disk, provenance, reading, shown
from seval.errors import DataError
from seval.files import read_bytes
from seval.text import short

_FOLDER, _CLASSES = "semi_fgvc", 200
_LARGEST, _PIXELS = 1 << 26, 1 << 26  # bytes and pixels of an image; those of iNaturalist have 2048 x 2048 at most
_LARGEST_LIST, _LONGEST = 1 << 25, 1024  # bytes of a list and characters of a path
_AGAIN = "unpack it again"
_LISTS = ("l_train_val.txt", "test.txt", "u_train_in.txt", "u_train.txt")
_CLOSED = (
    "iNaturalist's terms forbid fetching it for you: from the site of the Semi-Supervised Recognition Challenge at "
    "FGVC7 (github.com/cvl-umass/semi-inat-2020, or its page at kaggle.com) take the images for labeled training and "
    "validation, unlabeled in-class, unlabeled out-of-class, and test; from github.com/cvl-umass/ssl-evaluation, "
    f"folder data/semi_aves, take {', '.join(_LISTS)}; put the image folders trainval_images, u_train_in, u_train_out, "
    f"test and these lists into {_FOLDER} below DATASET.ROOT or into a folder DIR"
)


class _Image(NamedTuple):
    path: str  # relative to the folder of the lists
    label: int
    where: str  # for people


def read(raw: Path) -> ImageSet:
    """Semi-Aves from `raw` or `raw`/semi_fgvc: four lists of lines `relative/path label`, and the folders they name.

    Images stay JPEG, as `Blocks` of encoded images. The unlabeled part is u_train_in.txt and then the rest of
    u_train.txt; its `batch` is 1 for in-class and 2 for out-of-class images. Classes are ordered by falling frequency
    in l_train_val.txt, ties by the published number, here and nowhere else. Only listed files are used.
    """
    folder = raw / _FOLDER if (raw / _FOLDER).is_dir() else raw
    if missing := [name for name in _LISTS if not (folder / name).exists()]:
        raise DataError(f"{folder} has no {', '.join(missing)}; {_CLOSED}")
    train = _lines(folder / "l_train_val.txt", ("trainval_images",), 0)
    test = _lines(folder / "test.txt", ("test",), 0)
    inside, outside = _unlabeled(folder)
    counts = np.bincount([image.label for image in train], minlength=_CLASSES)
    if not counts.all():
        raise DataError(f"{folder / 'l_train_val.txt'} has no image of class {np.flatnonzero(counts == 0)[0]}")
    rank = frequency_rank(counts)
    batch = np.repeat(np.array([1, 2], np.uint8), [len(inside), len(outside)])
    return ImageSet(
        name="semi_aves",
        train=_part(folder, train, rank),
        test=_part(folder, test, rank),
        unlabeled=_part(folder, inside + outside, rank)._replace(batch=batch),
        class_names=tuple(f"species {c}" for c in np.argsort(rank)),
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        attributes={
            "source": "https://github.com/cvl-umass/semi-inat-2020, https://github.com/cvl-umass/ssl-evaluation",
            "license": "iNaturalist's terms: non-commercial research and education, no redistribution",
            "credit": "J.-C. Su, S. Maji, The Semi-Supervised iNaturalist-Aves Challenge at FGVC7 Workshop, "
            "arXiv:2103.06937; class names are the published numbers",
            "statistics_of": "imagenet",
        }
        | provenance({name: on_disk(folder / name, _LARGEST_LIST) for name in _LISTS}),
    )


def _lines(path: Path, folders: tuple[str, ...], lowest: int) -> list[_Image]:
    """The images of a list; each must lie in one of `folders`, and in the list once, however its path is written."""
    images, seen = [], set()
    for number, line in on_disk(path, _LARGEST_LIST).lines():
        if not (words := line.split()):
            continue
        where = f"{path}, line {number},"
        if len(words) != 2 or not re.fullmatch("-?[0-9]{1,9}", words[1]):
            raise DataError(f"{where} must hold a relative path and a label, but is {short(line.strip(), 80)}")
        if not lowest <= (label := int(words[1])) < _CLASSES:
            raise DataError(f"{where} has the label {label}, but it must lie in {lowest}..{_CLASSES - 1}")
        if len(words[0]) > _LONGEST or not words[0].isprintable():
            raise DataError(f"{where} has a path that is too long or has control characters: {shown(words[0])}")
        listed = PurePosixPath(words[0])  # the same for a/b, ./a/b and a//b
        if listed.parts[:1] not in [(folder,) for folder in folders] or ".." in listed.parts:
            raise DataError(f"{where} has {shown(words[0])}, but this list is of images in {' and '.join(folders)}")
        if listed in seen:
            raise DataError(f"{where} repeats {listed}")
        seen.add(listed)
        images.append(_Image(str(listed), label, where))
    if not images:
        raise DataError(f"{path} is empty; {_CLOSED}")
    return images


def _unlabeled(folder: Path) -> tuple[list[_Image], list[_Image]]:
    """In-class and out-of-class images; u_train.txt must be both lists, and nothing else."""
    inside = _lines(folder / "u_train_in.txt", ("u_train_in",), -1)
    both = _lines(folder / "u_train.txt", ("u_train_in", "u_train_out"), -1)
    in_class, listed = {image.path for image in inside}, {image.path for image in both}
    for image in inside:
        if image.path not in listed:
            raise DataError(
                f"{image.path} of u_train_in.txt is missing from {folder / 'u_train.txt'}; fetch both lists again"
            )
    outside = [image for image in both if image.path not in in_class]
    for image in outside:
        if not image.path.startswith("u_train_out/"):
            raise DataError(f"{image.where} has {image.path}, which is not in u_train_in.txt; fetch both lists again")
    return inside, outside


def _part(folder: Path, images: list[_Image], rank: np.ndarray) -> Part:
    """The images as `Blocks`, after a look at the size of every file."""
    listed = tqdm(images, desc=images[0].path.partition("/")[0], unit="files", leave=False, disable=None)
    sizes = [_size(folder / image.path, image) for image in listed]
    offsets = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])

    def blocks() -> Iterator[np.ndarray]:
        for image, size in zip(images, sizes, strict=True):
            yield np.frombuffer(_content(folder / image.path, size), np.uint8)

    labels = np.array([image.label for image in images])
    labels = np.where(labels < 0, labels, rank[labels])
    return Part(Blocks((int(offsets[-1]),), blocks, offsets), labels)


def _size(path: Path, image: _Image) -> int:
    """Bytes of a file, which must be one and not be empty."""
    try:
        size = on_disk(path, _LARGEST).size
    except DataError as error:
        raise DataError(f"{image.where} has {image.path}, but {error}") from None
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP):
            raise
        raise DataError(f"{path} is missing, but {image.where} names it; {_AGAIN}") from None
    if not size:
        raise DataError(f"{path} is empty; {_AGAIN}")
    return size


def _content(path: Path, size: int) -> bytes:
    """The file, which must be a whole JPEG of a size that an image of this set can have."""
    content = read_bytes(path, _LARGEST)
    if len(content) != size or not is_jpeg(content):
        raise DataError(f"{path} is truncated or not a JPEG; {_AGAIN}")
    # Neither Image.open, which tries every format; nor a decoder: this only reads the header.
    with reading(path, "is truncated or not a JPEG", _AGAIN), JpegImageFile(io.BytesIO(content)) as image:
        width, height = image.size
    if width * height > _PIXELS:
        raise DataError(f"{path} has {width} x {height} pixels, but may have {_PIXELS} at most; {_AGAIN}")
    return content


def is_jpeg(content: bytes) -> bool:
    """Whether the file is a JPEG from start to end: its segments lead to a scan, and the scan to an end marker."""
    if not content.startswith(b"\xff\xd8"):
        return False
    start = 2
    while content[start : start + 1] == b"\xff" and content[start + 1 : start + 2] != b"\xda":
        # Any number of bytes FF may precede a marker; other segments name their length, its two bytes included.
        fill = content[start + 1 : start + 2] == b"\xff"
        start += 1 if fill else 2 + int.from_bytes(content[start + 2 : start + 4], "big")
    return content[start : start + 2] == b"\xff\xda" and content.find(b"\xff\xd9", start) > 0


_FILES = f"{', '.join(_LISTS)} and the image folders they name"
SEMI_AVES = Source(read, _FILES, closed=_CLOSED, folder=_FOLDER)
