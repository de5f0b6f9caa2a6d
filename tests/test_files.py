"""Files are regular, named in every error, and written whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from pathlib import Path

import pytest

from seval.errors import ConfigError, RunBusy
from seval.files import read_bytes, read_json, read_text, read_yaml, replace, write_json


@pytest.fixture
def odd(tmp_path) -> dict[str, Path]:
    os.mkfifo(tmp_path / "pipe")
    return {"pipe": tmp_path / "pipe", "device": Path("/dev/zero"), "folder": tmp_path}


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_only_regular_files_are_read_and_others_are_refused_at_once(odd, kind):
    for read in (read_bytes, read_text, lambda path: read_json(path, {})):
        with pytest.raises(OSError, match=f"cannot read {odd[kind]}: "):
            read(odd[kind])
    with pytest.raises(ConfigError, match="cannot read"):
        read_yaml(odd[kind])


def test_an_error_keeps_its_type_and_number(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=f"cannot read {tmp_path}/x: No such file") as error:
        read_bytes(tmp_path / "x")
    assert error.value.errno == errno.ENOENT
    with pytest.raises(OSError, match="null byte"):
        read_bytes(Path("a\0b"))

    def stale(*_: object) -> None:
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(os, "open", stale)
    with pytest.raises(OSError, match=f"cannot read {tmp_path}/y: Stale file handle") as error:
        read_bytes(tmp_path / "y")
    assert error.value.errno == errno.ESTALE


def test_a_file_may_not_be_longer_than_it_can_be(tmp_path):
    (tmp_path / "x").write_bytes(b"12345")
    assert read_bytes(tmp_path / "x", 5) == b"12345"
    with pytest.raises(OSError, match="it has 5 bytes, more than the 4"):
        read_bytes(tmp_path / "x", 4)


def test_text_is_utf8_whatever_the_locale_is(tmp_path):
    (tmp_path / "x").write_bytes(b"\xef\xbb\xbf\xc3\xa9")
    assert read_text(tmp_path / "x") == "é"
    (tmp_path / "x").write_bytes(b"a: \xff")
    with pytest.raises(ValueError):
        read_text(tmp_path / "x")
    with pytest.raises(ConfigError, match="not text in UTF-8"):
        read_yaml(tmp_path / "x")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[]", "a list, not an object"),
        ("null", "a NoneType, not an object"),
        ("{}", "no 'id'"),
        ('{"id": 5}', "'id' is a int, not a str"),
        ('{"id": "a", "n": true}', "'n' is a bool, not a int or float"),
        ("[" * 100_000, "nested too deeply"),
        ("", "Expecting value"),
    ],
)
def test_json_has_the_keys_and_types_that_are_asked_for(tmp_path, text, words):
    (tmp_path / "x.json").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=words):
        read_json(tmp_path / "x.json", {"id": str, "n": (int, float)})


def test_json_is_read_back(tmp_path):
    write_json(tmp_path / "x.json", {"id": "é", "n": 0.5, "more": [1]})
    assert read_json(tmp_path / "x.json", {"id": str, "n": (int, float)}) == {"id": "é", "n": 0.5, "more": [1]}
    with pytest.raises(ValueError):
        write_json(tmp_path / "x.json", float("nan"))
    assert read_json(tmp_path / "x.json", {})["id"] == "é"


def test_the_check_comes_after_the_write_and_before_the_new_file(tmp_path):
    path, seen = tmp_path / "x", []
    path.write_bytes(b"old")

    def lost() -> None:
        seen.extend(sorted(os.listdir(tmp_path)))
        raise RunBusy("taken over")

    with pytest.raises(RunBusy):
        replace(path, b"new", lost)
    assert path.read_bytes() == b"old" and len(seen) == 2 and os.listdir(tmp_path) == ["x"]


def test_a_holder_whose_file_a_successor_deleted_hears_of_the_successor(tmp_path):
    calls = []

    def check() -> None:
        calls.append(1)
        if len(calls) == 1:
            next(tmp_path.glob(".x.*")).unlink()
        else:
            raise RunBusy("taken over")

    with pytest.raises(RunBusy):
        replace(tmp_path / "x", b"new", check)


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    (tmp_path / "x").write_bytes(b"old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="cannot write .*x: No space left on device") as error:
        replace(tmp_path / "x", b"new")
    assert error.value.errno == errno.ENOSPC
    assert os.listdir(tmp_path) == ["x"] and (tmp_path / "x").read_bytes() == b"old"


def test_what_is_no_file_is_not_replaced(tmp_path):
    """As a device would be by root: `/dev/null` is the name of something that all processes need."""
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as server, contextlib.chdir(tmp_path):
        server.bind("socket")  # names of sockets are short
    (tmp_path / "target").write_bytes(b"kept")
    (tmp_path / "link").symlink_to("target")
    for name in ("pipe", "socket"):
        before = os.lstat(tmp_path / name)
        with pytest.raises(OSError, match=f"cannot write {tmp_path / name}: it is not a regular file"):
            replace(tmp_path / name, b"new")
        assert os.lstat(tmp_path / name).st_ino == before.st_ino
    replace(tmp_path / "link", b"new")
    assert (tmp_path / "link").read_bytes() == b"new" and (tmp_path / "target").read_bytes() == b"kept"
    assert sorted(os.listdir(tmp_path)) == ["link", "pipe", "socket", "target"]
