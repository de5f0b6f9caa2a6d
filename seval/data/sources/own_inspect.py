"""A look at every image of a user's own, whose results are kept beside the output until that is written.

So a second call after an interruption looks at new and changed files only.
"""

import base64
import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from seval.data.disk import writing
from seval.data.pictures import encoded, pixels
from seval.data.sources.own import LARGEST_ARRAY, SEEN, Item, Reader
from seval.files import open_regular, sealed, unsealed
from seval.text import json_value

_BLOCK = 500  # images between two writes
_LONGEST_LINE = 1 << 24  # bytes
_LEVELS = np.arange(256) / 255


class Kept:
    """The side file: each line is a sealed object that names the images of a block and what was seen of them.

    `key` says under which circumstances; lines of others, and what a kill or the disk left unfinished, do not count.
    """

    def __init__(self, path: Path, key: str) -> None:
        self.path, self.key = path, key

    def read(self) -> dict[str, np.void]:
        """What was seen, by image."""
        found: dict[str, np.void] = {}
        with suppress(FileNotFoundError), open_regular(self.path) as file:
            while line := file.readline(_LONGEST_LINE):
                with suppress(ValueError, TypeError, KeyError, AttributeError):
                    block = unsealed(json_value(line))
                    if block["key"] == self.key:
                        seen = np.frombuffer(base64.b64decode(block["seen"]), SEEN)
                        found.update(zip(block["wheres"], seen, strict=True))
        return found

    def add(self, wheres: Sequence[str], seen: Sequence[np.void]) -> None:
        """Append a block, in one write."""
        content = base64.b64encode(np.array(seen, SEEN).tobytes()).decode()
        line = json.dumps(sealed({"key": self.key, "wheres": list(wheres), "seen": content}))
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                file.write(f"\n{line}\n".encode())  # on a line of its own, whatever was left before

    def remove(self) -> None:
        """The set is written."""
        with suppress(OSError):
            self.path.unlink(missing_ok=True)


def inspect(
    reader: Reader, items: Sequence[Item], side: int | None, kept: Kept | None
) -> tuple[np.ndarray, list[tuple[str, str]]]:
    """What was seen (N,) of each image, and the place and reason of each that cannot be read (its `size` is -1).

    Raises `OSError` where what was seen cannot be kept, and `MemoryError`.
    """
    seen = np.zeros(len(items), SEEN)
    problems: list[tuple[str, str]] = []
    known = kept.read() if kept else {}
    fresh: list[int] = []
    bar = tqdm(items, desc="inspecting", unit="images", leave=False, disable=None)
    for i, item in enumerate(bar):
        try:
            version = reader.version(item.where)
            before = known.pop(item.where, None)
            if before is not None and (before["size"], before["mtime"]) == version:
                seen[i] = before
                continue
            seen[i] = (*version, *_look(reader, item.where, version[0], side))
            fresh.append(i)
        except ValueError as error:
            seen["size"][i] = -1
            problems.append((item.where, str(error)))
        if kept and len(fresh) == _BLOCK:
            kept.add([items[i].where for i in fresh], [seen[i] for i in fresh])
            fresh.clear()
    if kept and fresh:
        kept.add([items[i].where for i in fresh], [seen[i] for i in fresh])
    return seen, problems


def _look(reader: Reader, where: str, size: int, side: int | None) -> tuple:
    """The fields of `SEEN` behind the version of the file, which has `size` bytes."""
    picture, plain = reader.picture(where)
    again = side is None and not plain and max(picture.size) > LARGEST_ARRAY
    stored = len(encoded(picture)) if again else size * plain
    array = pixels(picture, (side, side) if side else None, 3).reshape(3, -1)
    shares = np.stack([np.bincount(channel, minlength=256) for channel in array]) / array.shape[1]
    shape, gray = (picture.height, picture.width), picture.mode == "L"
    return _digest(picture), *shape, gray, plain, stored, shares @ _LEVELS, shares @ _LEVELS**2


def _digest(picture: Image.Image) -> bytes:
    rgb = picture.convert("RGB")
    return hashlib.sha256(json.dumps([rgb.height, rgb.width]).encode() + rgb.tobytes()).hexdigest().encode()
