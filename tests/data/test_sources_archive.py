"""Folders and archives: what belongs to a set, how large it can be, and what is hostile."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from pathlib import Path

import pytest

from seval.data.sources import archive
from tests.data.mutations import outcome

LIMITS = {"data_batch_1": 1000, "batches.meta": 100}
GOOD = {"data_batch_1": b"a" * 1000, "batches.meta": b"b" * 100}


def pack(path: Path, *members: tuple[str, bytes] | tarfile.TarInfo) -> Path:
    """A .tar.gz with these files, and then with the good ones."""
    with tarfile.open(path, "w:gz", format=tarfile.GNU_FORMAT) as tar:
        for member in (*members, *((f"set/{name}", content) for name, content in GOOD.items())):
            info = member if isinstance(member, tarfile.TarInfo) else tarfile.TarInfo(member[0])
            content = b"" if isinstance(member, tarfile.TarInfo) else member[1]
            info.size = info.size or len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def special(name: str, kind: bytes, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def contents(path: Path) -> dict[str, bytes]:
    files = archive.untar(path, LIMITS, "*batch_*")
    return {name: file.content() for name, file in files.items()}


def gathered(raw: Path) -> dict[str, bytes]:
    files = archive.gather(raw, "set", "set.tar.gz", LIMITS, "*batch_*")
    return {name: file.content() for name, file in files.items()}


def header(kind: bytes, size: int) -> bytes:
    info = special("x", kind)
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("large", [archive.LARGE, 0])
def test_only_wanted_files_of_an_archive_are_kept(tmp_path, monkeypatch, large):
    monkeypatch.setattr(archive, "LARGE", large)
    foreign = [(f"set/foreign_{k}.bin", bytes(20_000_000)) for k in range(3)]
    path = pack(tmp_path / "a.tar.gz", *foreign)
    got, _, peak = outcome(lambda: contents(path))
    assert got == GOOD and peak < 5e6


def test_a_hostile_archive_writes_nothing_and_follows_nothing(tmp_path):
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "below").mkdir()
    path = pack(
        tmp_path / "below/a.tar.gz",
        ("../evil", b"evil"),
        ("/tmp/evil_absolute", b"evil"),
        special("set/data_batch_1", tarfile.SYMTYPE, "../secret"),
        special("set/batches.meta", tarfile.LNKTYPE, "../secret"),
        special("set/data_batch_1", tarfile.FIFOTYPE),
        special("set/data_batch_1", tarfile.CHRTYPE),
        special("set/data_batch_1", tarfile.DIRTYPE),
        special("set/link", tarfile.SYMTYPE, "link"),
    )
    assert contents(path) == GOOD
    assert {p.name for p in tmp_path.rglob("*")} == {"secret", "below", "a.tar.gz"}
    assert not Path("/tmp/evil_absolute").exists()


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (("set/data_batch_1", b"a"), "data_batch_1 in {path} is there twice"),
        (("other/data_batch_1", b"a"), "data_batch_1 in {path} is there twice"),
        (("set/data_batch_6", b"a"), "data_batch_6 in {path} is no file of this set"),
        (("set/batch_\x1b[2J", b"a"), r"batch_\x1b[2J in {path} is no file of this set"),
    ],
)
def test_files_that_do_not_belong_there_are_named(tmp_path, member, message):
    path = pack(tmp_path / "a.tar.gz", member)
    assert message.format(path=path) in outcome(lambda: contents(path))[1]


def test_a_file_larger_than_it_can_be_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "a.tar.gz"
    for name, size in (("data_batch_1", 1001), ("batches.meta", 200_000_000)):
        monkeypatch.setitem(GOOD, name, bytes(size))
        pack(path)
        value, message, peak = outcome(lambda: contents(path))
        assert f"{name} in {path} has {size} bytes, but may have" in message and peak < 5e6
        monkeypatch.undo()
        (tmp_path / "set").mkdir(exist_ok=True)
        for each, content in GOOD.items():
            (tmp_path / "set" / each).write_bytes(content)
        with open(tmp_path / "set" / name, "wb") as file:
            file.truncate(1 << 40)  # a hole
        path.unlink()
        value, message, peak = outcome(lambda: gathered(tmp_path))
        assert f"{name} has {1 << 40} bytes, but may have" in message and peak < 5e6


@pytest.mark.parametrize("kind", [b"x", b"g", b"L", b"K", b"X"])
def test_a_header_without_end_is_refused(tmp_path, kind):
    path = tmp_path / "a.tar.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(header(kind, 1 << 30))
        for _ in range(100):
            file.write(b"0\n" * 500_000)
    value, message, peak = outcome(lambda: contents(path))
    assert f"{path} is truncated or not a .tar.gz (a header is too long)" in message and peak < 10e6


def test_many_headers_are_refused_or_forgotten(tmp_path):
    path = tmp_path / "a.tar.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write((header(b"L", 2) + b"a".ljust(512, b"\0")) * 3000)
    assert f"{path} is truncated or not a .tar.gz (it is nested too deeply)" in outcome(lambda: contents(path))[1]
    sparse = bytearray(header(b"S", 512))
    sparse[386:410], sparse[482], sparse[483:495] = b"0" * 23 + b"\0", 1, b"0" * 11 + b"\0"
    sparse[148:156] = b" " * 8
    sparse[148:156] = b"%06o\0 " % sum(sparse)
    more = (b"00000000001\0" * 42)[:504] + b"\1" + bytes(7)
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(sparse + more * 20_000)
    value, message, peak = outcome(lambda: contents(path))
    assert f"{path} is truncated or not a .tar.gz (a header is too long)" in message and peak < 20e6
    path = pack(tmp_path / "b.tar.gz", *((f"set/{k}", b"") for k in range(20_000)))
    value, message, peak = outcome(lambda: contents(path))
    assert value == GOOD and peak < 20e6


def test_a_damaged_archive_is_noticed_by_its_checksum(tmp_path):
    path = pack(tmp_path / "a.tar.gz")
    content = bytearray(path.read_bytes())
    content[-6] ^= 1
    path.write_bytes(content)
    assert f"{path} is truncated or not a .tar.gz (CRC check failed" in outcome(lambda: contents(path))[1]
    path.write_bytes(gzip.compress(b""))
    assert outcome(lambda: contents(path))[1]


def test_what_macos_adds_is_ignored(tmp_path):
    path = pack(tmp_path / "set.tar.gz", ("set/._data_batch_1", b"\0"), ("__MACOSX/set/._batches.meta", b"\0"))
    assert gathered(tmp_path) == GOOD
    path.unlink()
    (tmp_path / "set").mkdir()
    for name, content in GOOD.items():
        (tmp_path / "set" / name).write_bytes(content)
        (tmp_path / "set" / f"._{name}").write_bytes(b"\0")
    (tmp_path / "set/.DS_Store").write_bytes(b"\0")
    assert gathered(tmp_path) == GOOD
    stray = tmp_path / "set/data_batch_1.bak"
    stray.write_bytes(b"")
    assert f"{stray} is no file of this set; remove it" in (error := outcome(lambda: gathered(tmp_path))[1])
    assert "fetch" not in error


def test_a_pipe_or_a_folder_ends_at_once(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    for name, content in GOOD.items():
        (folder / name).write_bytes(content)
    path = folder / "data_batch_1"
    for make, what in ((os.mkfifo, "a pipe"), (os.mkdir, "a folder"), (lambda p: p.symlink_to("/dev/zero"), "a pipe")):
        path.unlink()
        make(path)
        assert f"{path} is {what}" in outcome(lambda: gathered(tmp_path))[1]
        path.rmdir() if path.is_dir() else path.unlink()
        path.write_bytes(GOOD["data_batch_1"])
    (folder / "data_batch_1").rename(tmp_path / "aside")
    folder.rename(tmp_path / "elsewhere")
    os.mkfifo(tmp_path / "set.tar.gz")
    assert f"{tmp_path / 'set.tar.gz'} is not a regular file" in outcome(lambda: gathered(tmp_path))[1]
