"""Fetch the publishers' archives: every address in one place, resumed where it stopped, checked by MD5 and SHA-256."""

import errno
import hashlib
import http.client
import os
import ssl
import urllib.error
import urllib.request
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from seval.errors import DataError
from seval.files import told
from seval.text import short_line


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
#: SHA-256 of the files of these MD5, as several other projects pin them.
SHA256 = {
    "c58f30108f718f92721af3b95e74349a": "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
    "eb9058c3a382ffc7106e4002c42a8d85": "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
    "91f7769df0f17e558f3565bffb0c7dfb": "f31fd99273a1acb8609c8db427cebb1de3f71de77758cdc0e22956e1289b9866",
    "8d4fb7e6c68d591d4c3dfef9ec88bf0d": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
    "25c81989df183df01b3e8a0aad5dffbe": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
    "bef4ecab320f06d8554ea6380940ec79": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
    "bb300cfdad3c16e7a12a480ee83cd310": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
}
_TRIALS = 3  # of every address: a long download often breaks
#: Faults of the disk here, which another address does not help with.
_OURS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EIO, errno.ESTALE)


def fetch(archives: tuple[Archive, ...], folder: Path) -> None:
    """Put the archives into `folder`, except those that are there and complete.

    What an interrupted download left is in NAME.part, and the next call resumes from there.
    Raises `DataError` where no address gives the published file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for archive in archives:
        path = folder / archive.name
        if not path.is_file() or not _is_published(path, archive):
            _fetch(archive, path)


def _fetch(archive: Archive, path: Path) -> None:
    part, faults = path.with_name(f"{path.name}.part"), {}
    if part.exists() and not part.is_file():
        raise DataError(f"{part} is not a regular file; remove it")
    for url in archive.urls * _TRIALS:
        try:
            _continue(url, part)
        except (OSError, http.client.HTTPException, ValueError) as error:
            if isinstance(error, OSError) and error.errno in _OURS and not isinstance(error, ssl.SSLError):
                raise told(error, "write", part) from None
            faults[url] = short_line(error)
            continue
        if _is_published(part, archive):
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


def _is_published(path: Path, archive: Archive) -> bool:
    weak, strong = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            weak.update(block)
            strong.update(block)
    expected = archive.md5, SHA256.get(archive.md5, strong.hexdigest())
    return (weak.hexdigest(), strong.hexdigest()) == expected
