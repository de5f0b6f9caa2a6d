"""Downloads: resumed, checked, and only where asked for and allowed."""

from __future__ import annotations

import functools
import hashlib
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torchvision

from repro import prepare as cli
from seval.data.hdf5 import verify
from seval.data.sources import SOURCES, fetch
from tests.standins import (
    fails,
    write_small_cifar10,
)


class _Shaky(BaseHTTPRequestHandler):
    """Serves one file, with ranges; the connections numbered in `breaks` break halfway through what they send."""

    def __init__(self, content: bytes, breaks: set[int], ranges: bool, seen: list, *arguments) -> None:
        self.content, self.breaks, self.ranges, self.seen = content, breaks, ranges, seen
        super().__init__(*arguments)

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.seen.append(asked)
        start = int(asked[len("bytes=") : -1]) if asked and self.ranges else 0
        if start >= len(self.content):
            self.send_error(416)
            return
        rest = self.content[start:]
        self.send_response(206 if asked and self.ranges else 200)
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        self.wfile.write(rest[: len(rest) // 2] if len(self.seen) in self.breaks else rest)

    def log_message(self, *_) -> None:
        pass


@pytest.fixture
def serve():
    """Start `_Shaky` servers: from (content, breaks, ranges) to an address and the list of the ranges asked for."""
    servers = []

    def start(content: bytes, breaks: set[int] = frozenset(), ranges: bool = True) -> tuple[str, list]:
        seen: list = []
        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Shaky, content, breaks, ranges, seen)))
        threading.Thread(target=servers[-1].serve_forever, args=(0.02,), daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}/file.bin", seen

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


CONTENT = np.random.RandomState(0).bytes(3_000_000)


def _archive(*urls: str, content: bytes = CONTENT) -> fetch.Archive:
    return fetch.Archive("file.bin", hashlib.md5(content).hexdigest(), urls)


def test_a_download_goes_on_where_it_broke(tmp_path, serve):
    url, seen = serve(CONTENT, {1, 2})
    fetch.fetch((_archive(url),), tmp_path)
    assert seen == [None, "bytes=1500000-", "bytes=2250000-"]
    assert (tmp_path / "file.bin").read_bytes() == CONTENT and len(list(tmp_path.iterdir())) == 1
    fetch.fetch((_archive(url),), tmp_path)
    assert len(seen) == 3  # what is there and whole is not fetched again


def test_a_download_goes_on_in_the_next_call(tmp_path, serve):
    url, seen = serve(CONTENT, {1, 2, 3})
    error = fails(fetch.fetch, (_archive(url),), tmp_path)
    assert "the connection broke after 2625000 of 3000000 bytes" in error and "call again to resume" in error
    assert [path.name for path in tmp_path.iterdir()] == ["file.bin.part"]
    fetch.fetch((_archive(url),), tmp_path)
    assert seen[3:] == ["bytes=2625000-"] and (tmp_path / "file.bin").read_bytes() == CONTENT


def test_a_whole_part_and_a_server_without_ranges(tmp_path, serve):
    (tmp_path / "file.bin.part").write_bytes(CONTENT)
    fetch.fetch((_archive(serve(CONTENT)[0]),), tmp_path)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
    (tmp_path / "file.bin").write_bytes(b"damaged")
    url, seen = serve(CONTENT, {1}, ranges=False)
    fetch.fetch((_archive(url),), tmp_path)
    assert len(seen) == 2 and (tmp_path / "file.bin").read_bytes() == CONTENT


def test_mirrors_and_files_that_are_not_the_published_ones(tmp_path, serve):
    wrong, right = serve(CONTENT[::-1])[0], serve(CONTENT)[0]
    (tmp_path / "file.bin.part").write_bytes(b"of another file")
    fetch.fetch((_archive("http://127.0.0.1:9/file.bin", wrong, right),), tmp_path)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
    (tmp_path / "file.bin").unlink()
    error = fails(fetch.fetch, (_archive("http://127.0.0.1:9/file.bin", wrong),), tmp_path)
    assert "refused" in error and f"{wrong}: what it gives is not the published file" in error
    assert f"cannot fetch {tmp_path / 'file.bin'}" in error and not list(tmp_path.iterdir())


def test_the_command_downloads_only_where_asked(tmp_path, tiny, serve, monkeypatch, capsys):
    folder = write_small_cifar10(tmp_path / "theirs", tiny)
    with tarfile.open(tmp_path / "theirs.tar.gz", "w:gz") as tar:
        tar.add(folder, folder.name)
    content = (tmp_path / "theirs.tar.gz").read_bytes()
    archive = _archive(serve(content, {1})[0], content=content)._replace(name="cifar-10-python.tar.gz")
    monkeypatch.setitem(SOURCES, "cifar10", SOURCES["cifar10"]._replace(archives=(archive,)))
    command, broken = ["cifar10", "--root", str(tmp_path)], tmp_path / "raw/cifar-10-batches-py"
    assert cli.main(command) == 2 and "fetch it with --download" in capsys.readouterr().err
    broken.mkdir(parents=True)
    assert cli.main(command) == 2 and "has no data_batch_1" in capsys.readouterr().err
    assert cli.main([*command, "--download"]) == 0
    assert verify(tmp_path / "cifar10.h5").attributes["official"] is False
    monkeypatch.setitem(SOURCES, "cifar10", SOURCES["cifar10"]._replace(archives=(_archive("http://127.0.0.1:9/x"),)))
    (tmp_path / "raw/cifar-10-python.tar.gz").unlink()
    assert cli.main([*command, "--download", "--force"]) == 2
    assert "error: cannot fetch" in (error := capsys.readouterr().err) and error.count("\n") == 1


@pytest.mark.parametrize("name", ["small_imagenet127", "small_imagenet127_64", "semi_aves"])
def test_what_a_license_forbids_is_explained(tmp_path, name, capsys):
    assert cli.main([name, "--root", str(tmp_path), "--download"]) == 2
    assert "forbid fetching it for you" in (error := capsys.readouterr().err) and error.count("\n") == 1
    assert "forbid fetching it for you" in fails(SOURCES[name].download, tmp_path)


def test_addresses_and_checksums_are_those_of_torchvision():
    theirs = torchvision.datasets
    for name, dataset in (("cifar10", theirs.CIFAR10), ("cifar100", theirs.CIFAR100), ("stl10", theirs.STL10)):
        assert fetch.ARCHIVES[name] == (fetch.Archive(dataset.filename, dataset.tgz_md5, (dataset.url,)),)
    ours = fetch.ARCHIVES["fashion_mnist"]
    assert [(a.name, a.md5) for a in ours] == theirs.FashionMNIST.resources
    assert all(a.urls[0] == theirs.FashionMNIST.mirrors[0] + a.name for a in ours)
