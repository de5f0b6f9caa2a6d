"""The file that is written beside its final place: its lock, and what killed writers left."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from seval.data import partial as room
from seval.data.partial import LIVE, partial
from tests.settings import ROOT

HOLD = (
    "import sys; from pathlib import Path; from seval.data.partial import partial\n"
    "with partial(Path(sys.argv[1]), 0) as aside:\n    print(aside, flush=True); sys.stdin.read()"
)


def holder(path: Path) -> subprocess.Popen:
    command = [sys.executable, "-c", HOLD, str(path)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_it_takes_the_place_only_without_an_error(tmp_path):
    path = tmp_path / "new" / "x.h5"
    with partial(path, 1) as aside:
        aside.write_bytes(b"one")
        assert not path.exists() and aside in LIVE
    with pytest.raises(KeyError), partial(path, 1) as aside:
        aside.write_bytes(b"two")
        raise KeyError
    assert path.read_bytes() == b"one" and names(path.parent) == ["x.h5"] and aside not in LIVE


def test_what_a_killed_writer_left_is_removed_at_once_and_that_of_a_living_one_is_not(tmp_path):
    path = tmp_path / "x[1].h5"  # also a pattern
    with holder(path) as killed, holder(path) as living:
        left, held = Path(killed.stdout.readline().strip()), Path(living.stdout.readline().strip())
        killed.kill()
        killed.wait()
        os.utime(held, (0, 0))
        assert left.exists()
        with partial(path, 0):
            assert held.exists() and not left.exists()
        living.communicate("")
        assert living.returncode == 0
    assert names(tmp_path) == [path.name]


@pytest.mark.parametrize(("age", "swept"), [(0, False), (3500, False), (3700, True)])
@pytest.mark.parametrize("of", ["another machine", "version 0.1.0", "no locks"])
def test_where_locks_tell_nothing_the_age_decides(of, age, swept, tmp_path, monkeypatch):
    """A container has another host name each time, and the machine that the writer ran on may be gone."""
    name = {"another machine": "0123", "version 0.1.0": f"{socket.gethostname()}.1", "no locks": room._machine()}[of]
    left = tmp_path / f".x.h5.{name}.partial" if of[0] == "v" else tmp_path / f".x.h5.{name}.4567.partial"
    left.write_bytes(b"half")
    os.utime(left, (time.time() - age,) * 2)
    if of == "no locks":
        monkeypatch.setattr(room.fcntl, "flock", lambda *_: os.stat("/nowhere"))
    others = [tmp_path / name for name in (".x.h5.partial", "x.h5.1.2.partial", ".y.h5.1.2.partial", ".x.h5.1.2.part")]
    for other in others:
        other.touch()
    with partial(tmp_path / "x.h5", 0):
        assert left.exists() != swept
    assert all(other.exists() for other in others)


def test_links_and_pipes_of_such_names_are_left_alone(tmp_path):
    (tmp_path / "precious").write_bytes(b"x")
    (tmp_path / f".x.h5.{room._machine()}.1.partial").symlink_to(tmp_path / "precious")
    os.mkfifo(tmp_path / f".x.h5.{room._machine()}.2.partial")
    with partial(tmp_path / "x.h5", 0):
        pass
    assert (tmp_path / "precious").read_bytes() == b"x"


def test_a_file_that_was_swept_before_it_was_locked_is_made_again(tmp_path, monkeypatch):
    real, made = room._lock, []

    def lock(descriptor: int) -> bool | None:
        made.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        if len(made) == 1:
            os.unlink(made[0])  # by another process, in between
        return False if len(made) == 2 else real(descriptor)  # which now holds it

    monkeypatch.setattr(room, "_lock", lock)
    with partial(tmp_path / "x.h5", 0) as aside:
        assert len(made) == 3 and str(aside) == made[2] and names(tmp_path) == [aside.name]
    assert names(tmp_path) == ["x.h5"]


def test_one_whose_file_was_removed_says_so(tmp_path):
    with pytest.raises(OSError, match="^cannot write .*/x.h5: No such file or directory$"):
        with partial(tmp_path / "x.h5", 0) as aside:
            aside.unlink()
    assert not names(tmp_path)


def test_a_pipe_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "x.h5")
    with pytest.raises(OSError, match="x.h5: it is not a regular file"), partial(tmp_path / "x.h5", 0):
        pass
    assert os.listdir(tmp_path) == ["x.h5"]
