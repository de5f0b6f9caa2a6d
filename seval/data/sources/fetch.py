"""Fetch the publishers' archives: every address in one place, resumed where it stopped, checked by MD5."""

import hashlib
import http.client
import os
import urllib.error
import urllib.request
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from seval.errors import DataError, one_line


class Archive(NamedTuple):
    """A published file, the MD5 that torchvision expects, and its addresses in the order of trial."""

    name: str
    md5: str
    urls: tuple[str, ...]


def _archive(name: str, md5: str, *folders: str) -> Archive:
    return Archive(name, md5, tuple(folder + name for folder in folders))


_CIFAR, _STL10 = "https://www.cs.toronto.edu/~kriz/", "http://ai.stanford.edu/~acoates/stl10/"
_FASHION = (
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
)
ARCHIVES = {
    "cifar10": (_archive("cifar-10-python.tar.gz", "c58f30108f718f92721af3b95e74349a", _CIFAR),),
    "cifar100": (_archive("cifar-100-python.tar.gz", "eb9058c3a382ffc7106e4002c42a8d85", _CIFAR),),
    "stl10": (_archive("stl10_binary.tar.gz", "91f7769df0f17e558f3565bffb0c7dfb", _STL10),),
    "fashion_mnist": (
        _archive("train-images-idx3-ubyte.gz", "8d4fb7e6c68d591d4c3dfef9ec88bf0d", *_FASHION),
        _archive("train-labels-idx1-ubyte.gz", "25c81989df183df01b3e8a0aad5dffbe", *_FASHION),
        _archive("t10k-images-idx3-ubyte.gz", "bef4ecab320f06d8554ea6380940ec79", *_FASHION),
        _archive("t10k-labels-idx1-ubyte.gz", "bb300cfdad3c16e7a12a480ee83cd310", *_FASHION),
    ),
}
_TRIALS = 3  # of every address: a long download often breaks


def fetch(archives: tuple[Archive, ...], folder: Path) -> None:
    """Put the archives into `folder`, except those that are there and complete.

    What an interrupted download left is in NAME.part, and the next call resumes from there.
    Raises `DataError` where no address gives the published file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for archive in archives:
        path = folder / archive.name
        if not path.is_file() or _md5(path) != archive.md5:
            _fetch(archive, path)


def _fetch(archive: Archive, path: Path) -> None:
    part, faults = path.with_name(f"{path.name}.part"), {}
    for url in archive.urls * _TRIALS:
        try:
            _continue(url, part)
        except (OSError, http.client.HTTPException) as error:
            faults[url] = one_line(error)
            continue
        if _md5(part) == archive.md5:
            os.replace(part, path)
            return
        faults[url] = "what it gives is not the published file"
        part.unlink()
    what = "; ".join(f"{url}: {fault}" for url, fault in faults.items())
    raise DataError(f"cannot fetch {path} ({what}); call again to resume, or put {archive.name} there by hand")


def _continue(url: str, part: Path) -> None:
    """Append to `part` the rest of the file at `url`; raises `OSError` where the connection breaks."""
    done = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={done}-"} if done else {})
    try:
        response = urllib.request.urlopen(request, timeout=60)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:  # nothing is left to send
            return
        raise
    with response, open(part, "ab" if response.status == 206 else "wb") as file:
        done = file.tell()
        total = done + int(response.headers["Content-Length"]) if response.headers["Content-Length"] else None
        bar = tqdm(total=total, initial=done, unit="B", unit_scale=True, desc=part.stem, leave=False, disable=None)
        with bar:
            while block := response.read(1 << 20):
                bar.update(file.write(block))
        if total is not None and file.tell() != total:
            raise ConnectionError(f"the connection broke after {file.tell()} of {total} bytes")


def _md5(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
