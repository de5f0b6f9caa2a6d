"""A preparation that was interrupted resumes, looks at new and changed files only, and ends in the same bytes."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from repro import prepare as cli
from seval.data import hdf5
from seval.data.sources import own_inspect
from seval.data.sources.own_files import Files
from tests.data.own import Own, pictures, save, write_folder


@pytest.fixture
def folder(tmp_path, tiny, monkeypatch) -> Path:
    monkeypatch.setattr(own_inspect, "_BLOCK", 4)
    given = pictures(tiny)
    write_folder(tmp_path / "raw", given)
    for i, picture in enumerate(given[:3]):
        save(tmp_path / f"raw/unlabeled/{i}.jpg", np.kron(255 - picture.array, np.ones((8, 8), np.uint8)))
    return tmp_path / "raw"


@pytest.fixture
def looked(monkeypatch) -> list[str]:
    """The images that were decoded; while `stop` is in the list, decoding is interrupted after that many."""
    names: list[str] = []
    inner = Files.picture

    def picture(self: Files, where: str):
        names.append(where)
        return inner(self, where)

    monkeypatch.setattr(Files, "picture", picture)
    return names


def interrupted(own: Own, folder: Path, after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Ctrl-C while the image number `after` is looked at."""
    inner, count = Files.picture, 0

    def picture(self: Files, where: str):
        nonlocal count
        count += 1
        if count > after:
            raise KeyboardInterrupt
        return inner(self, where)

    with monkeypatch.context() as patch:
        patch.setattr(Files, "picture", picture)
        assert cli.main(["folder", "--raw", str(folder), "--name", "own", "--root", str(own.root)]) == 130
    own.capsys.readouterr()
    assert not own.path.exists()


@pytest.mark.parametrize("after", [0, 3, 4, 11, 37])
def test_interrupted_and_resumed_is_undisturbed(own, folder, after, looked, monkeypatch):
    own.made("folder", "--raw", folder)
    whole, every = own.path.read_bytes(), len([*folder.rglob("*.*")])
    shutil.rmtree(own.root)
    interrupted(own, folder, after, monkeypatch)
    del looked[:]
    encoding = own.made("folder", "--raw", folder) and len(looked)
    assert own.path.read_bytes() == whole
    assert {path.name for path in own.root.iterdir()} == {"own.h5"}
    del looked[:]
    own.made("folder", "--raw", folder)
    assert len(looked) - encoding == after // 4 * 4 and every == 38


def test_only_new_and_changed_files_are_looked_at(own, folder, looked, monkeypatch):
    interrupted(own, folder, 36, monkeypatch)
    changed, new, gone = folder / "train/a/001.png", folder / "train/a/new.png", folder / "unlabeled/030.png"
    changed = next(folder.glob("train/a/*.png"))
    shutil.copy(next(folder.glob("unlabeled/*.png")), new)
    gone = next(folder.glob("test/a/*.png"))
    gone.unlink()
    os.utime(changed, ns=(1, 1))
    del looked[:]
    seen = set()
    inner = own_inspect._look
    monkeypatch.setattr(
        own_inspect, "_look", lambda reader, where, *more: seen.add(where) or inner(reader, where, *more)
    )
    own.made("folder", "--raw", folder)
    kept = {str(path.relative_to(folder)) for path in (changed, new)}
    assert kept <= seen and len(seen - kept) <= 2  # those that the interrupted call did not get to
    fresh = own.path.read_bytes()
    shutil.rmtree(own.root)
    own.made("folder", "--raw", folder)
    assert own.path.read_bytes() == fresh


def test_a_side_file_is_not_believed_when_it_is_damaged_or_of_something_else(own, folder, looked, monkeypatch):
    own.made("folder", "--raw", folder)
    whole = own.path.read_bytes()
    side = own.root / ".own.h5.inspected"
    own.path.unlink()
    interrupted(own, folder, 36, monkeypatch)
    kept = side.read_bytes()
    damages = [kept[: len(kept) // 2], kept.replace(b"A", b"B", 40), b"\0" * 5000, b"{}\n[]\nnull\n" + kept[100:]]
    for content in (*damages, b'{"key": 1, "wheres": [], "seen": "", "sha256": ""}\n'):
        side.write_bytes(content)
        own.made("folder", "--raw", folder)
        assert own.path.read_bytes() == whole
    side.write_bytes(kept)
    del looked[:]
    own.made("folder", "--raw", folder, "--size", 16)  # other circumstances
    assert len(looked) >= 2 * 38
    side.write_bytes(kept)
    folder.rename(folder.with_name("other"))
    del looked[:]
    own.made("folder", "--raw", folder.with_name("other"))
    assert len(looked) >= 38


def test_a_repaired_folder_resumes(own, folder, looked):
    (folder / "train/a/zz.png").touch()
    own.fails("folder", "--raw", folder)
    (folder / "train/a/zz.png").unlink()
    looks = len(looked)
    assert own("folder", "--raw", folder) == 0
    assert len(looked) - looks <= 2 * 35  # those that are encoded again; no second look at all of them


def test_a_file_that_changes_while_the_set_is_written_is_an_error(own, folder, monkeypatch):
    inner = cli.prepare_own.__globals__["make"]

    def make(*args):
        os.utime(next(folder.glob("train/a/*.png")), ns=(1, 1))
        return inner(*args)

    monkeypatch.setitem(cli.prepare_own.__globals__, "make", make)
    assert "it changed while the set was prepared; run the same command again" in own.fails("folder", "--raw", folder)
    monkeypatch.undo()
    assert own("folder", "--raw", folder) == 0


def test_a_set_of_ones_own_is_verified_named_and_not_made_without_its_form(own, folder, capsys):
    own.made("folder", "--raw", folder)
    root = ["--root", str(own.root)]
    assert cli.main(["own", "--verify", *root]) == 0 and "own.h5 is valid" in capsys.readouterr().out
    assert cli.main(["own", *root]) == 0 and "with --name own --force writes it again" in capsys.readouterr().out
    assert cli.main(["onw", *root]) == 2
    error = capsys.readouterr().err
    assert "no file" in error and "(did you mean own?)" in error and "holds own; this code can prepare cifar10" in error
    own.path.write_bytes(own.path.read_bytes()[:-500])
    assert cli.main(["own", *root]) == 2
    assert capsys.readouterr().err.endswith("that is prepare.py folder, csv or npz with --name own --force\n")
    assert own("folder", "--raw", folder) == 0 and "writing it again" in own.out and hdf5.verify(own.path)


def test_help_shows_the_forms(capsys):
    for words in (["--help"], ["folder", "--help"], ["csv", "-h"], ["npz", "-h"]):
        with pytest.raises(SystemExit) as caught:
            cli.main(words)
        out = capsys.readouterr().out
        assert caught.value.code == 0 and "prepare.py folder --raw ~/birds --name birds" in out
