"""One HDF5 layout for every image set: write, read and verify it.

Groups `train`, `test` and, where a set has one, `unlabeled` hold `labels` int64 (N,) and either `images` uint8
(N, c, H, W) or N encoded images: all their bytes in `encoded` uint8 (B,), image i from `offsets`[i] to the next.
A group may hold `batch` uint8 (N,) too; see `Part`.
"""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from tqdm import tqdm

from seval.data.blocks import Blocks, blocks_of, dataset, digest, stored
from seval.data.image_set import Encoded, ImageSet, Part, check_arrays, class_counts, statistics
from seval.data.sources import SOURCES
from seval.defaults import DEFAULTS
from seval.errors import DataError, one_line

FORMAT = 1  # of the layout; raise it when a reader of the old one would misread the new one
_CHUNK_BYTES = 1 << 20
#: Attributes of the file beside those that have a field of their own in `ImageSet`; the last may be missing.
_ATTRIBUTES = ("source", "license", "credit", "sources_sha256", "official", "class_counts", "statistics_of")


def data_file(name: str, root: str | Path | None = None) -> Path:
    """ROOT/NAME.h5, where the environment variable SEVAL_DATA replaces the default root."""
    if root is None or str(root) == DEFAULTS.DATASET.ROOT:
        root = os.environ.get("SEVAL_DATA") or DEFAULTS.DATASET.ROOT
    return Path(root) / f"{name}.h5"


def write(path: str | Path, images: ImageSet, compress: bool = False) -> None:
    """Write the set to a temporary file, then rename it: a file of the final name is always complete.

    `Blocks` are written, and their SHA-256 taken, block by block. With the same build of HDF5 and zlib, the same arrays
    give the same bytes, in memory or not. Raises `DataError` where the arrays do not follow the layout.
    """
    path = Path(path)
    check_arrays(images, f"cannot write {path}", "fix its source")
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path)
    aside = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.partial")
    options = {"fletcher32": True, "track_times": False}
    options |= {"compression": "gzip", "compression_opts": 9} if compress else {}
    arrays = images.arrays()
    size = sum(array.nbytes for array in arrays.values())
    try:
        # From this version of the format on, HDF5 checksums its own metadata too.
        with (
            h5py.File(aside, "w", libver=("v110", "v110")) as file,
            tqdm(total=size, unit="B", unit_scale=True, desc=path.name, leave=False, disable=None) as bar,
        ):
            for key, value in _header(images).items():
                file.attrs[key] = encode_attribute(value)
            for key, array in arrays.items():
                _store(file, key, array, options, bar)
        with open(aside, "rb") as file:
            os.fsync(file.fileno())
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def read(path: str | Path, *, in_blocks: bool = False) -> ImageSet:
    """The set, after what can be checked cheaply: format, attributes, HDF5 checksums, dtypes, shapes, labels.

    Encoded images stay in the file, and with `in_blocks` pixels do too, as `Blocks`; HDF5 checks what stays when it is
    read. Raises `DataError` where the file is missing, is not such a file, or fails a check.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(_missing(path))
    with _guarded(path):
        with h5py.File(path, "r") as file:
            if (version := read_attribute(file, "format")) != FORMAT:
                raise DataError(f"{path} is of format {version}, but this code reads format {FORMAT}; {_again(path)}")
            images = _load(file, path, in_blocks)
        check_arrays(images, f"{path} is damaged", _again(path))
    return images


def verify(path: str | Path) -> ImageSet:
    """`read` in blocks, and then in full: every SHA-256 and class count, and mean and std against the pixels.

    Published channel statistics describe the official images, so they are compared only where the set is official, and
    not where they are another set's.
    """
    path = Path(path)
    images = read(path, in_blocks=True)
    with _guarded(path):
        for key, array in images.arrays().items():
            if digest(array) != images.sha256[key]:
                raise DataError(f"{path} was altered: {key} does not match its SHA-256; {_again(path)}")
    if class_counts(images) != images.attributes["class_counts"]:
        raise DataError(f"{path} was altered: its class counts do not match its labels; {_again(path)}")
    if images.attributes["official"] and images.train.offsets is None and "statistics_of" not in images.attributes:
        mean, std = statistics(images.train.content)
        for what, given, measured in (("mean", images.mean, mean), ("std", images.std, std)):
            if not np.allclose(given, measured, rtol=0, atol=1e-3):
                raise DataError(
                    f"{path} was altered: its {what} is {given}, but its pixels have {measured}; {_again(path)}"
                )
    return images


def remedy(path: Path) -> str:
    """The command that writes `path`."""
    here = "" if path == data_file(path.stem) else f" --root {path.parent}"
    return f"python repro/prepare.py {path.stem}{here}"


def _missing(path: Path) -> str:
    if path.stem not in SOURCES:
        return f"no file {path}, and {path.stem!r} is not a set this code can prepare; it can: {', '.join(SOURCES)}"
    source = SOURCES[path.stem]
    way = source.closed or f"write it with `{remedy(path)} --download`, or put {source.files} into a folder DIR"
    return f"no file {path}; {way} and run `{remedy(path)} --raw DIR`"


def _again(path: Path) -> str:
    return f"write it again: {remedy(path)}"


@contextmanager
def _guarded(path: Path) -> Iterator[None]:
    """HDF5, JSON and NumPy raise many kinds of errors on altered bytes; turn all of them into the same `DataError`."""
    try:
        yield
    except DataError:
        raise
    except (OSError, LookupError, ValueError, RuntimeError, TypeError, AttributeError, MemoryError) as error:
        raise DataError(f"{path} is damaged, incomplete or not HDF5 ({one_line(error)}); {_again(path)}") from None


def _sweep(path: Path) -> None:
    """Remove the temporary files of writers of `path` that were killed on this machine."""
    for left in path.parent.glob(f".{path.name}.{socket.gethostname()}.*.partial"):
        try:
            os.kill(int(left.name.split(".")[-2]), 0)
        except ProcessLookupError:
            left.unlink(missing_ok=True)
        except (ValueError, PermissionError):
            pass  # not ours


def _store(file: h5py.File, key: str, array: np.ndarray | Blocks, options: dict, bar: tqdm) -> None:
    """Write an array and its SHA-256."""
    shape = array.shape
    chunk = _CHUNK_BYTES // 4 if key.endswith("/encoded") else _CHUNK_BYTES  # encoded images are read singly
    rows = min(shape[0], max(1, chunk * shape[0] // array.nbytes))
    data = file.create_dataset(key, shape, array.dtype, chunks=(rows, *shape[1:]), **options)

    def written() -> Iterator[np.ndarray]:
        done = 0
        for block in _aligned(key, array, rows):
            data[done : done + len(block)] = block
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
    return {"format": FORMAT} | fields | {key: attributes[key] for key in _ATTRIBUTES if key in attributes}


def _load(file: h5py.File, path: Path, in_blocks: bool) -> ImageSet:
    train, test = (_load_part(file, name, path, in_blocks) for name in ("train", "test"))
    unlabeled = _load_part(file, "unlabeled", path, in_blocks) if "unlabeled" in file else None
    class_names, mean, std = (tuple(read_attribute(file, key)) for key in ("class_names", "mean", "std"))
    attributes = {key: read_attribute(file, key) for key in _ATTRIBUTES if key != "statistics_of" or key in file.attrs}
    images = ImageSet(read_attribute(file, "name"), train, test, class_names, mean, std, attributes, unlabeled)
    return images._replace(sha256={key: read_attribute(dataset(file, key), "sha256") for key in images.arrays()})


def _load_part(file: h5py.File, name: str, path: Path, in_blocks: bool) -> Part:
    batch = dataset(file, f"{name}/batch")[()] if f"{name}/batch" in file else None
    if f"{name}/encoded" in file:
        images, encoded = Encoded(path, name, dataset(file, f"{name}/offsets")[()]), dataset(file, f"{name}/encoded")
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
    """What `encode_attribute` was given. Raises `LookupError` where there is no such attribute."""
    if key not in owner.attrs:
        raise LookupError(f"the attribute {key} of {owner.name} is missing")
    value: Any = owner.attrs[key]
    return json.loads(value if isinstance(value, str) else bytes(value).decode())
