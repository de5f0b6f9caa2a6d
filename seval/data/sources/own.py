"""What the forms of a user's own images have in common: each image, its part and class, and how it is read.

The forms (`own_files`, `own_csv`, `own_npz`) give a `Listing`, `own_inspect` looks at its images, and `own_set` makes
the set.
"""

import unicodedata
from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
from PIL import Image

from seval.text import short

PARTS = ("train", "valid", "test", "unlabeled")
LARGEST_ARRAY = 96  # pixels of a side up to which images of one size are stored as they are
Note = Callable[[str], object]  # takes a line for people

#: What is known of an image once it was looked at. The digest is over the size and the pixels in RGB; `stored` is the
#: length of its JPEG in an encoded set, 0 where nobody has asked yet; `plain` says that this JPEG is the file itself;
#: mean and square are those of its pixels, as stored, and of their squares, on the scale of [0, 1].
SEEN = np.dtype(
    [("size", "i8"), ("mtime", "i8"), ("digest", "S64"), ("height", "i4"), ("width", "i4"), ("gray", "?")]
    + [("plain", "?"), ("stored", "i8"), ("mean", "f8", 3), ("square", "f8", 3)]
)


class Item(NamedTuple):
    """An image of a form. The label of an unlabeled image is empty; `where` names it, for its reader and for people."""

    part: str
    label: str
    where: str


class Reader(Protocol):
    """What reads the images of a form. All raise `ValueError` with a short reason where one cannot be read."""

    def version(self, where: str) -> tuple[int, int]:
        """Size and time of the last change of an image's file."""
        ...

    def picture(self, where: str) -> tuple[Image.Image, bool]:
        """See `pictures.examined`."""
        ...

    def content(self, where: str) -> bytes:
        """The bytes of an image's file."""
        ...


class Listing(NamedTuple):
    """What a form holds. `problems` are places and reasons of what is no image of it; `notes` are for people."""

    reader: Reader
    items: list[Item]
    problems: list[tuple[str, str]]
    notes: list[str]
    source: str  # form and name


class Wishes(NamedTuple):
    """What the user asked for."""

    name: str
    side: int | None = None  # of the stored arrays
    test_portion: float = 0.0
    allow_duplicates: bool = False
    license: str = "unknown"


def class_name(text: str) -> str:
    """The name of a class as it is stored: Unicode's NFC, without blanks around it. Raises `ValueError`."""
    name = unicodedata.normalize("NFC", text).strip()
    if not name or not name.isprintable():
        raise ValueError(f"its class {short(text)} is not printable text in UTF-8")
    return name
