"""Small-ImageNet-127: down-sampled ImageNet with its 1,000 classes merged into 127, one batch file in memory at a time.

The shipped map from 1,000 to 127 classes, imagenet127.csv, is derived from WordNet 3.0 (Princeton University); 76 of
its rows are a choice among several ancestors. The published pipeline reads its choice from a file imgname2folder.txt;
where that lies beside the batches, it wins.
"""

import csv
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from seval.data.blocks import Blocks
from seval.data.image_set import ImageSet, Part
from seval.data.sources.arrays import read_npz
from seval.data.sources.raw import (
    Source,
    frequency_rank,
    labels_in,
    on_disk,
    pixels_in,
    provenance,
    reading,
    require,
    shown,
    unpickle,
)
from seval.errors import DataError

_TRAIN = tuple(f"train_data_batch_{k}" for k in range(1, 11))
_TEST, _FOLDERS_FILE = "val_data", "imgname2folder.txt"
_CLASSES, _ORIGINAL = 127, 1000
_LARGEST = {32: 1 << 29, 64: 1 << 31}  # bytes of a file, by side: somewhat more than the published ones
_LARGEST_LIST = 1 << 28
_ROWS = 1024  # images of a block
_AGAIN = "unpack it again from its publisher's archive"


class _Mapping(NamedTuple):
    class_of: np.ndarray  # int64 (1001,): of the 127, by label from 1
    class_names: list[str]  # in the order of the published list of 127
    origin: str  # for people


def read(raw: Path, side: int = 32) -> ImageSet:
    """Small-ImageNet-127 from the 11 files in `raw`, `raw`/imagenet or, at 64 pixels, `raw`/imagenet64.

    The files are pickles, or .npz of the same names. Images are `Blocks`; `train.batch` says which of the ten batches
    an image is from: batch 1 is the published labeled set. Only here are classes renumbered: by falling frequency in
    batch 1, ties by the published order. The test images are `val_data`, as imbalanced as they are.
    """
    folder = raw / _folder(side) if (raw / _folder(side)).is_dir() else raw
    paths = _paths(folder, side)
    mapping = _mapping(folder)
    labels = {}
    for name, path in tqdm(paths.items(), desc="labels", leave=False, disable=None):
        labels[name] = mapping.class_of[_load(path, side)[1]]
    rank = frequency_rank(np.bincount(labels[_TRAIN[0]], minlength=_CLASSES))
    numbers = [np.full(len(labels[name]), k, np.uint8) for k, name in enumerate(_TRAIN, start=1)]
    train = np.concatenate([rank[labels[name]] for name in _TRAIN])
    files = {path.name: on_disk(path, _LARGEST[side]) for path in paths.values()}
    if (folder / _FOLDERS_FILE).exists():
        files[_FOLDERS_FILE] = on_disk(folder / _FOLDERS_FILE, _LARGEST_LIST)
    return ImageSet(
        name="small_imagenet127" if side == 32 else f"small_imagenet127_{side}",
        train=Part(_blocks([paths[name] for name in _TRAIN], side, len(train)), train, np.concatenate(numbers)),
        test=Part(_blocks([paths[_TEST]], side, len(labels[_TEST])), rank[labels[_TEST]]),
        class_names=tuple(mapping.class_names[c] for c in np.argsort(rank)),
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2471, 0.2435, 0.2616),
        attributes={
            "source": f"https://image-net.org/download-images, down-sampled image data ({side}x{side})",
            "license": "ImageNet terms of access: non-commercial research and education, no redistribution",
            "credit": "O. Russakovsky et al., ImageNet Large Scale Visual Recognition Challenge, IJCV, 2015; "
            f"down-sampled by P. Chrabaszcz, I. Loshchilov, F. Hutter, arXiv:1707.08819; {mapping.origin}",
            "statistics_of": "cifar10",
        }
        | provenance(files),
    )


def _folder(side: int) -> str:
    return "imagenet" if side == 32 else f"imagenet{side}"


def _paths(folder: Path, side: int) -> dict[str, Path]:
    """The eleven files by name, in order."""
    found = sorted(path for kind in ("train_data*", "val_data*") for path in folder.glob(kind) if not path.is_dir())
    if not found:
        raise DataError(f"no down-sampled ImageNet in {folder}; {_closed(side)}")
    paths = {}
    for path in found:
        name = path.name.removesuffix(".npz")
        if name not in (*_TRAIN, _TEST):
            raise DataError(f"{path} is no file of down-sampled ImageNet: {folder} holds something else; remove it")
        if name in paths:
            raise DataError(f"{path} and {paths[name]} are the same batch; remove one of them")
        paths[name] = path
    return require(paths, (*_TRAIN, _TEST), folder)


def _load(path: Path, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels uint8 (N, 3, side, side) and labels int64 (N,), 1 to 1000, of one file."""
    file = on_disk(path, _LARGEST[side])
    if path.suffix == ".npz":
        with reading(path, "is truncated or not an .npz of arrays", _AGAIN, file.size), file.start() as opened:
            batch = read_npz(opened, ("data", "labels", "mean"), _LARGEST[side])
    else:
        batch = unpickle(file)
    is_test = path.name.startswith(_TEST)
    if is_test == ("mean" in batch):  # only the training files have one
        has, kind = ("a", "training") if is_test else ("no", "validation")
        raise DataError(f"{path} has {has} mean, so it is a {kind} file: files were swapped; {_AGAIN}")
    pixels = pixels_in(batch, side, str(path))
    return pixels, labels_in(batch, "labels", str(path), count=len(pixels), low=1, high=_ORIGINAL)


def _blocks(paths: list[Path], side: int, count: int) -> Blocks:
    def blocks() -> Iterator[np.ndarray]:
        for path in paths:
            pixels = _load(path, side)[0]
            for start in range(0, len(pixels), _ROWS):
                yield pixels[start : start + _ROWS].copy()  # a view would keep the whole file in memory
            del pixels  # before the next file is loaded

    return Blocks((count, 3, side, side), blocks)


def _mapping(folder: Path) -> _Mapping:
    """The shipped map, or the one of `folder`/imgname2folder.txt, with the number of differences printed."""
    with open(Path(__file__).with_name("imagenet127.csv"), encoding="utf-8") as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
    class_of = np.full(_ORIGINAL + 1, -1)
    class_of[[int(row["number"]) for row in rows]] = [int(row["class_index"]) for row in rows]
    index = {row["class_wnid"]: int(row["class_index"]) for row in rows}
    names = {int(row["class_index"]): row["class_name"] for row in rows}
    class_names = [names[c] for c in range(_CLASSES)]
    path = folder / _FOLDERS_FILE
    if not path.exists():
        choices = sum(bool(row["choice"]) for row in rows)
        origin = f"classes merged by the hypernyms of WordNet 3.0 (Princeton University), {choices} of 1,000 a choice"
        return _Mapping(class_of, class_names, origin)
    folders = _folders(path, {row["wnid"] for row in rows}, index)
    theirs = class_of.copy()
    theirs[[int(row["number"]) for row in rows]] = [index[folders[row["wnid"]]] for row in rows]
    moved = (theirs != class_of).sum()
    origin = f"classes merged by the user's {_FOLDERS_FILE}, which puts {moved} of 1,000 elsewhere than the shipped map"
    print(f"{path} is there: {origin}; it wins", flush=True)
    return _Mapping(theirs, class_names, origin)


def _folders(path: Path, originals: set[str], classes: dict[str, int]) -> dict[str, str]:
    """Wnid of the class of 127 by wnid of the class of 1,000, from lines `n01440764_10026.JPEG n01861778`."""
    folders: dict[str, str] = {}
    for number, line in on_disk(path, _LARGEST_LIST).lines():
        if not (words := line.split()):
            continue
        where = f"{path}, line {number},"
        if len(words) != 2:
            raise DataError(f"{where} must hold an image and a folder, but holds {len(words)} words")
        image, folder = (PurePosixPath(word) for word in words)
        if (original := image.name.partition("_")[0]) not in originals:
            raise DataError(
                f"{where} has the image {shown(words[0])}, but {shown(original)} is none of the 1,000 classes"
            )
        if folder.name not in classes:
            raise DataError(f"{where} has the folder {shown(words[1])}, which is none of the 127 classes")
        folders.setdefault(original, folder.name)
    if missing := sorted(originals - folders.keys()):
        raise DataError(f"{path} says nothing about {len(missing)} of the 1,000 classes, such as {missing[0]}")
    return folders


def _closed(side: int) -> str:
    train = ("train",) if side == 32 else ("train_part1", "train_part2")
    archives = ", ".join(f"Imagenet{side}_{part}.zip" for part in (*train, "val"))
    return (
        "ImageNet's terms forbid fetching it for you: log in at image-net.org, go to Download, Download down-sampled "
        f"image data ({side}x{side}), take {archives} (or those whose names end in _npz.zip), and "
        f"unpack them into {_folder(side)} below DATASET.ROOT or into a folder DIR, which then holds "
        "train_data_batch_1 to train_data_batch_10 and val_data"
    )


def _source(side: int) -> Source:
    files = f"train_data_batch_1 to 10 and val_data of down-sampled ImageNet ({side}x{side}), or their .npz"
    return Source(partial(read, side=side), files, closed=_closed(side), folder=_folder(side))


SMALL_IMAGENET127, SMALL_IMAGENET127_64 = _source(32), _source(64)
