"""One HDF5 layout for every image set: write, read and verify it.

Groups `train`, `test` and, where a set has one, `unlabeled` hold `labels` int64 (N,) and either `images` uint8
(N, c, H, W) or N encoded images: all their bytes in `encoded` uint8 (B,), image i from `offsets`[i] to the next.
A group may hold `batch` uint8 (N,) too; see `Part`.
"""

import errno
import json
import shlex
from collections.abc import Iterator
from contextlib import suppress
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from tqdm import tqdm

from seval.data.blocks import Blocks, blocks_of, dataset, digest, mark, stored
from seval.data.checks import ATTRIBUTES, OPTIONAL, check_arrays
from seval.data.disk import Steady, opened, remedy
from seval.data.disk import data_file as data_file
from seval.data.image_set import Encoded, ImageSet, Part, class_counts, fingerprint, fingerprint_0_1, statistics
from seval.data.partial import partial
from seval.data.sources import SOURCES
from seval.errors import DamagedData, DataError, one_line
from seval.files import told
from seval.places import called
from seval.text import json_value, printable, short

FORMAT = 1  # of the layout; raise it when a reader of the old one would misread the new one
_CHUNK_BYTES = 1 << 20
_LARGEST_ATTRIBUTE = 1 << 24  # bytes
_NAMED = 20  # sets in a message


def write(path: str | Path, images: ImageSet, compress: bool = False) -> None:
    """Write the set to a temporary file, read that back and rename it: a file of the final name is always complete.

    `Blocks` are written, and their SHA-256 taken, block by block. With the same build of HDF5 and zlib, the same arrays
    give the same bytes, in memory or not. Raises `DataError` where the arrays do not follow the layout, and `OSError`
    where the disk is full or fails; what was there then stays.
    """
    path = Path(path)
    check_arrays(images, f"cannot write {path}", "fix its source")
    size = sum(array.nbytes for array in images.arrays().values())
    with partial(path, 0 if compress else size) as aside:
        _fill(Steady(aside, "write", path), images, size, compress)
        try:
            _check_digests(aside, read(aside, in_blocks=True))
        except DataError:
            raise told(OSError(errno.EIO, "it does not read back as it was written"), "write", path) from None


def _fill(steady: Steady, images: ImageSet, size: int, compress: bool) -> None:
    """Write all of the set. Raises the first error of the disk, whatever HDF5 made of it."""
    options = {"fletcher32": True, "track_times": False}
    options |= {"compression": "gzip", "compression_opts": 9} if compress else {}
    try:
        # From this version of the format on, HDF5 checksums its own metadata too.
        with (
            h5py.File(steady, "w", libver=("v110", "v110")) as file,
            tqdm(total=size, unit="B", unit_scale=True, desc=steady.path.name, leave=False, disable=None) as bar,
        ):
            for key, value in _header(images).items():
                file.attrs[key] = encode_attribute(value)
            for key, array in images.arrays().items():
                _store(steady, file, key, array, options, bar)
    except RuntimeError as error:
        steady.check()
        raise OSError(f"cannot write {steady.path}: {one_line(error)}") from None
    finally:
        steady.check()


def read(path: str | Path, *, in_blocks: bool = False) -> ImageSet:
    """The set, after checks: format, header, HDF5 checksums, dtypes, shapes, labels, the SHA-256 of what is in memory.

    Encoded images stay in the file, and with `in_blocks` pixels do too, as `Blocks`; HDF5 checks what stays when it is
    read. Raises `DataError` where the file is missing, is not such a file, holds another set than its name says, or
    fails a check; `OSError` or `MemoryError` where it cannot be read now.
    """
    path = Path(path)
    try:
        with opened(path) as file:
            if (version := read_attribute(file, "format")) != FORMAT:
                which = f"is of format {short(version)}, but this code reads format {FORMAT}"
                raise DataError(f"{path} {which}; {_again(path)} --force")
            images = _load(file, path, in_blocks)
            check_arrays(images, f"{path} is damaged", _again(path), DamagedData)
            _check_digests(path, images, in_memory=True)
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(missing(path)) from None
    if path.stem in SOURCES and images.name != path.stem:
        held = f"{path} holds the set {short(images.name)}, not {path.stem!r}"
        raise DataError(f"{held}; move it away and run `{remedy(path)}`")
    return images


def fingerprints(file: Path) -> tuple[str | None, str | None]:
    """Of a prepared file, by today's formula and by that of version 0.1; None where it is not here or not readable."""
    with suppress(OSError, MemoryError, DataError):
        about = file.stat()
        return _known(file, about.st_mtime_ns, about.st_size)
    return None, None


@lru_cache(64)
def _known(file: Path, *version: int) -> tuple[str, str]:
    images = read(file, in_blocks=True)
    return fingerprint(images), fingerprint_0_1(images)


def verify(path: str | Path) -> ImageSet:
    """`read` in blocks, and then in full: every SHA-256 and class count, and mean and std against the pixels.

    Published channel statistics describe the official images, so they are compared only where the set is official, and
    not where they are another set's.
    """
    path = Path(path)
    images = read(path, in_blocks=True)
    _check_digests(path, images)
    if class_counts(images) != images.attributes["class_counts"]:
        raise DamagedData(f"{path} was altered: its class counts do not match its labels; {_again(path)}")
    if images.attributes["official"] and images.train.offsets is None and "statistics_of" not in images.attributes:
        mean, std = statistics(images.train.content)
        for what, given, measured in (("mean", images.mean, mean), ("std", images.std, std)):
            if not np.allclose(given, measured, rtol=0, atol=1e-3):
                raise DamagedData(
                    f"{path} was altered: its {what} is {given}, but its pixels have {measured}; {_again(path)}"
                )
    return images


def _check_digests(path: Path, images: ImageSet, in_memory: bool = False) -> None:
    """Compare every array with its SHA-256, or those `in_memory`; HDF5's own checksums take 255 for 0."""
    for key, array in images.arrays().items():
        if not (in_memory and isinstance(array, Blocks)) and digest(array) != images.sha256[key]:
            raise DamagedData(f"{path} was altered: {key} does not match its SHA-256; {_again(path)}")


def missing(path: Path) -> str:
    """That there is no such file, and how it is made."""
    shown = printable(str(path))
    if path.stem not in SOURCES:
        there = sorted(file.stem for file in path.parent.glob("*.h5"))
        near = get_close_matches(path.stem, {*there, *SOURCES})
        return (
            f"no file {shown}{f' (did you mean {near[0]}?)' if near else ''}; "
            f"{path.parent} holds {', '.join(map(printable, there[:_NAMED])) or 'no set'}; this code can prepare "
            f"{', '.join(SOURCES)}, and your own images: {shlex.join(called('repro/prepare.py'))} folder --help"
        )
    source = SOURCES[path.stem]
    way = source.closed or f"write it with `{remedy(path)} --download`, or put {source.files} into a folder DIR"
    return f"no file {shown}; {way} and run `{remedy(path)} --raw DIR`"


def _again(path: Path) -> str:
    return f"write it again: {remedy(path)}"


def _store(steady: Steady, file: h5py.File, key: str, array: np.ndarray | Blocks, options: dict, bar: tqdm) -> None:
    """Write an array and its SHA-256. Raises the first error of the disk."""
    shape = array.shape
    chunk = _CHUNK_BYTES // 4 if key.endswith("/encoded") else _CHUNK_BYTES  # encoded images are read singly
    rows = min(shape[0], max(1, chunk * shape[0] // array.nbytes))
    data = file.create_dataset(key, shape, array.dtype, chunks=(rows, *shape[1:]), **options)

    def written() -> Iterator[np.ndarray]:
        done = 0
        for block in _aligned(key, array, rows):
            data[done : done + len(block)] = block
            steady.check()
            bar.update(block.nbytes)
            done += len(block)
            yield block

    data.attrs["sha256"] = encode_attribute(digest(array, written()))


def _aligned(key: str, array: np.ndarray | Blocks, rows: int) -> Iterator[np.ndarray]:
    """The blocks of an array, cut at multiples of `rows`: each chunk is written once, whole and in order.

    Raises `DataError` where the blocks do not have the promised dtype and shape.
    """
    shape, dtype = array.shape, array.dtype
    held, count, total = [], 0, 0
    for block in blocks_of(array):
        total += len(block)
        if block.dtype != dtype or block.shape[1:] != shape[1:] or total > shape[0]:
            raise DataError(f"{key} must be {dtype} {shape}, but has {block.dtype} {block.shape} up to {total}")
        held.append(block)
        count += len(block)
        if count >= rows:
            joined = np.concatenate(held) if len(held) > 1 else block
            count %= rows
            yield joined[: len(joined) - count]
            held = [joined[len(joined) - count :].copy()]  # not a view, which would keep all of a block
            del joined
    if total != shape[0]:
        raise DataError(f"{key} must be {shape}, but ended after {total}: its raw files changed while they were read")
    if count:
        yield np.concatenate(held)


def _header(images: ImageSet) -> dict[str, object]:
    attributes = {**images.attributes, "class_counts": class_counts(images)}
    fields = {key: getattr(images, key) for key in ("name", "class_names", "mean", "std")}
    return {"format": FORMAT} | fields | {key: attributes[key] for key in ATTRIBUTES if key in attributes}


def _load(file: h5py.File, path: Path, in_blocks: bool) -> ImageSet:
    train, test = (_load_part(file, name, path, in_blocks) for name in ("train", "test"))
    unlabeled = _load_part(file, "unlabeled", path, in_blocks) if "unlabeled" in file else None
    listed = [read_attribute(file, key) for key in ("class_names", "mean", "std")]
    if not all(isinstance(each, list) for each in listed):
        raise ValueError("class_names, mean and std are lists")
    class_names, mean, std = map(tuple, listed)
    attributes = {key: read_attribute(file, key) for key in ATTRIBUTES if key not in OPTIONAL or key in file.attrs}
    images = ImageSet(read_attribute(file, "name"), train, test, class_names, mean, std, attributes, unlabeled)
    return images._replace(sha256={key: read_attribute(dataset(file, key), "sha256") for key in images.arrays()})


def _load_part(file: h5py.File, name: str, path: Path, in_blocks: bool) -> Part:
    batch = dataset(file, f"{name}/batch")[()] if f"{name}/batch" in file else None
    if f"{name}/encoded" in file:
        encoded = dataset(file, f"{name}/encoded")
        images = Encoded(path, name, dataset(file, f"{name}/offsets")[()], mark(encoded))
        if encoded.dtype != np.uint8 or encoded.shape != (images.offsets[-1],):
            raise ValueError(f"{name}/encoded has {encoded.shape}, but {name}/offsets says otherwise")
    else:
        pixels = dataset(file, f"{name}/images")
        as_blocks = in_blocks and pixels.dtype == np.uint8
        images = stored(path, f"{name}/images", pixels.shape) if as_blocks else pixels[()]
    return Part(images, dataset(file, f"{name}/labels")[()], batch)


def encode_attribute(value: object) -> np.ndarray:
    """JSON as a string of fixed length: HDF5 does not checksum the heap in which it puts strings of variable length."""
    encoded = json.dumps(value, ensure_ascii=False).encode()
    return np.array(encoded, dtype=h5py.string_dtype("utf-8", len(encoded)))


def read_attribute(owner: h5py.File | h5py.Dataset, key: str) -> Any:
    """What `encode_attribute` was given. Raises `LookupError` where there is none, and `ValueError`."""
    if key not in owner.attrs:
        raise LookupError(f"the attribute {key} of {owner.name} is missing")
    if owner.attrs.get_id(key).get_storage_size() > _LARGEST_ATTRIBUTE:
        raise ValueError(f"the attribute {key} of {owner.name} is too large")
    value: Any = owner.attrs[key]
    return json_value(value if isinstance(value, str) else bytes(value))
