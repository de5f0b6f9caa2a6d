"""Claims as files: damaged, copied, torn, odd."""

from __future__ import annotations

import errno
import json
import os
import shutil

import pytest

from seval import claim as module
from seval.claim import claim, holder
from seval.errors import RunBusy
from seval.files import sealed


@pytest.mark.parametrize(
    "text", ["[]", "null", "5", "{}", "[" * 100_000, "", "\x00" * 512, '{"pid": 1', '{"host": {}}']
)
def test_a_claim_that_cannot_be_read_is_alive_by_its_age(text, tmp_path):
    (tmp_path / "claim.1").write_text(text)
    assert holder(tmp_path)
    with pytest.raises(RunBusy, match="is held by another process"), claim(tmp_path):
        pass
    os.utime(tmp_path / "claim.1", (1, 1))
    assert holder(tmp_path) is None
    with claim(tmp_path) as held:
        assert held.number == 2


def test_no_flipped_bit_makes_a_live_claim_dead(tmp_path):
    with claim(tmp_path) as held:
        whole = held.path.read_bytes()
        for bit in range(0, 8 * len(whole), 7):
            flipped = bytearray(whole)
            flipped[bit // 8] ^= 1 << bit % 8
            held.path.write_bytes(flipped)
            assert holder(tmp_path), f"bit {bit}"


def test_a_copy_of_a_folder_is_free(tmp_path):
    (tmp_path / "run").mkdir()
    with claim(tmp_path / "run"):
        shutil.copytree(tmp_path / "run", tmp_path / "copy")
        assert holder(tmp_path / "run") and holder(tmp_path / "copy") is None
        with claim(tmp_path / "copy") as held:
            assert held.number == 2


@pytest.mark.parametrize("kept", [1, 11, 15, 18, 19])
def test_a_claim_is_released_by_one_write_and_a_torn_one_is_enough(kept, tmp_path, monkeypatch):
    with claim(tmp_path) as held:
        size = held.path.stat().st_size
    assert held.path.stat().st_size == size and holder(tmp_path) is None
    whole = json.dumps(sealed(module._self(tmp_path))).encode()
    held.path.write_bytes((module.RELEASED + b"  ")[:kept] + whole[kept:])
    assert (holder(tmp_path) is None) == (kept >= 11)


@pytest.mark.parametrize("name", ["claim.٣", "claim.01", "claim.0", "claim.-1", "claim.1x"])
def test_only_plain_numbers_are_claims(name, tmp_path):
    (tmp_path / name).write_text("{}")
    assert holder(tmp_path) is None


def test_a_claim_that_cannot_be_kept_is_given_up_and_one_that_cannot_be_deleted_does_not_count(tmp_path, monkeypatch):
    (tmp_path / "claim.1").write_bytes(module.RELEASED)
    unlink = module.Path.unlink

    def sticky(path, missing_ok=False):
        if path.name == "claim.1":
            raise PermissionError
        unlink(path, missing_ok)

    monkeypatch.setattr(module.Path, "unlink", sticky)
    with claim(tmp_path) as held:
        assert held.number == 2 and holder(tmp_path)
    monkeypatch.setattr(module.Claim, "check", lambda _: (_ for _ in ()).throw(OSError(errno.EIO, "I/O error")))
    with pytest.raises(OSError, match=f"cannot claim {tmp_path}: I/O error"), claim(tmp_path):
        pass
    assert (tmp_path / "claim.3").exists() and holder(tmp_path) is None


def test_a_claim_without_a_thread_for_its_heartbeats_is_given_up(tmp_path, monkeypatch):
    def none(_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(module.threading.Thread, "start", none)
    with pytest.raises(OSError, match=f"cannot claim {tmp_path}: can't start new thread"), claim(tmp_path):
        pass
    assert holder(tmp_path) is None


@pytest.mark.parametrize("digits", [18, 19, 200])
def test_every_number_has_a_next_one(digits, tmp_path):
    (tmp_path / f"claim.{'9' * digits}").write_bytes(module.RELEASED)
    for _ in range(2):
        with claim(tmp_path) as held:
            assert held.number > 10**digits - 1 and [held.number] == module._numbers(tmp_path, "claim")


def test_a_claim_that_is_no_file_is_an_error_at_once(tmp_path):
    os.mkfifo(tmp_path / "claim.1")
    with pytest.raises(OSError, match=r"claim\.1: it is not a regular file"):
        holder(tmp_path)
