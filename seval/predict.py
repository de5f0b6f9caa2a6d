"""Image files to a table of predictions, batch by batch, so that memory does not grow with their number."""

import csv
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from seval.data.decode import decode
from seval.data.partial import partial
from seval.data.pictures import FORMATS, as_jpeg, open_picture, pixels
from seval.errors import ConfigError
from seval.files import read_bytes, told
from seval.inference import Classifier, Stored
from seval.text import printable, short_line

_LARGEST = 1 << 28  # bytes of an image file; 2^26 pixels of three bytes fit in
_SHOWN = 20  # files that could not be read, of which the reason is kept


class Files(NamedTuple):
    """The files that paths lead to, which are looked up anew each time: a folder may have millions."""

    paths: Sequence[str]

    def __iter__(self) -> Iterator[Path]:
        """Every file that is named; of folders and the folders in them, in the order of their names, the images.

        An image is what has the name of one, whatever the case of its letters. Hidden files and links to folders are
        left out. Raises `ConfigError` for a path that is not there and a folder without images, and `OSError`.
        """
        for path in map(Path, self.paths):
            if str(path).startswith("@") and not path.exists():
                yield from _listed(Path(str(path)[1:]))
            elif path.is_dir():
                yield from _inside(path)
            elif path.exists():
                yield path
            else:
                raise ConfigError(f"no file or folder {printable(str(path))}")


def _listed(file: Path) -> Iterator[Path]:
    """The paths in a text file, a line for each. They may be missing, which then is the fault of one image only."""
    lines = os.fsdecode(read_bytes(file).removeprefix(b"\xef\xbb\xbf")).split("\n")
    paths = [Path(line.removesuffix("\r")) for line in lines if line.strip()]
    if not paths:
        raise ConfigError(f"the list {printable(str(file))} names no files; write a path in each line")
    for path in paths:
        yield from _inside(path) if path.is_dir() else [path]


def _inside(folder: Path) -> Iterator[Path]:
    found, others = False, 0
    for path in _walk(folder):
        if path.suffix.lower() in suffixes():
            found = True
            yield path
        else:
            others += 1
    if not found:
        there = f"none of its {others} files has the name of an image" if others else "it has no files"
        raise ConfigError(f"no images in {printable(str(folder))}: {there} ({', '.join(sorted(suffixes()))})")


def _walk(folder: Path) -> Iterator[Path]:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise told(error, "read", folder) from None
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(folder / entry.name)
        elif not entry.is_dir():
            yield folder / entry.name


@cache
def suffixes() -> frozenset[str]:
    """What the names of images end in, in lower case."""
    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in FORMATS)


@dataclass
class Predicted:
    """What came of the files: images by class, and how many files could not be read, of some of which with why."""

    classes: Counter[str] = field(default_factory=Counter)
    bad: int = 0
    reasons: dict[str, str] = field(default_factory=dict)

    def miss(self, path: Path, error: Exception) -> None:
        self.bad += 1
        if len(self.reasons) < _SHOWN:
            self.reasons[str(path)] = short_line(error).removeprefix(f"cannot read {path}: ")


def stored_form(content: bytes, form: Stored) -> np.ndarray:
    """uint8 (c, H, W): a file as a prepared set would give it to a network. Raises `ValueError`."""
    if form.encoded:
        return decode(as_jpeg(content), form.height)
    return pixels(open_picture(content), (form.height, form.width), form.channels)


@torch.inference_mode()
def predict(
    classifier: Classifier, files: Files, out: Path, offset: Tensor, *, top: int = 1, bar: bool | None = None
) -> Predicted:
    """Write a table (CSV, UTF-8) with a row for each image to `out`, whole or not at all.

    Columns: path, label, probability, margin to the second, then label_k and probability_k for the next of the `top`
    classes. `offset` (C,) is taken off the logits. `bar` shows a progress bar; None, on a terminal. What cannot be read
    is counted in the result. Raises `ConfigError` if that is all of the files, and `OSError`.
    """
    predicted, names, total = Predicted(), classifier.class_names, sum(1 for _ in files)
    more = [f"{key}_{k}" for k in range(2, top + 1) for key in ("label", "probability")]
    with partial(out, 0) as aside:
        with (
            aside.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
            tqdm(
                total=total, unit="image", dynamic_ncols=True, desc="predict", mininterval=1.0, disable=_hidden(bar)
            ) as progress,
        ):
            table = csv.writer(file)
            table.writerow(["path", "label", "probability", "margin", *more])
            for paths, images in _batches(files, classifier, predicted, progress):
                probs, order = ranked(classifier(images.to(offset.device)) - offset)
                for path, shares, classes in zip(paths, probs.tolist(), order[:, :top].tolist(), strict=True):
                    first = [names[classes[0]], _number(shares[0]), _number(shares[0] - shares[1])]
                    rest = [(names[c], _number(p)) for c, p in zip(classes[1:], shares[1:], strict=False)]
                    table.writerow([path, *first, *(each for pair in rest for each in pair)])
                    predicted.classes[names[classes[0]]] += 1
        if not predicted.classes:
            path, reason = next(iter(predicted.reasons.items()))
            raise ConfigError(f"none of the {predicted.bad} files can be read as an image; {path}: {reason}")
    return predicted


def ranked(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Probabilities (N, C) and their classes from the likeliest on; the first is the one that evaluations count."""
    order = logits.argsort(dim=1, descending=True, stable=True)
    return logits.softmax(1).gather(1, order), order


def _batches(
    files: Files, classifier: Classifier, predicted: Predicted, progress: Any
) -> Iterator[tuple[list[Path], Tensor]]:
    form = classifier.stored
    paths: list[Path] = []
    images = np.empty((classifier.batch, form.channels, form.height, form.width), np.uint8)
    for path in files:
        try:
            images[len(paths)] = stored_form(read_bytes(path, _LARGEST), form)
            paths.append(path)
        except MemoryError:
            raise
        except Exception as error:  # damaged files raise anything
            predicted.miss(path, error)
        progress.update()
        if len(paths) == len(images):
            yield paths, torch.from_numpy(images)
            paths = []
    if paths:
        yield paths, torch.from_numpy(images[: len(paths)])


def _hidden(bar: bool | None) -> bool | None:
    return None if bar is None else not bar  # tqdm's None: on a terminal only


def _number(share: float) -> str:
    return f"{share:.8g}"
