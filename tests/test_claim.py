from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from seval import claim as module
from seval.claim import Claim, claim, holder
from seval.errors import RunBusy
from tests.claimants import foreign, names, start

ROUNDS = """
from seval.claim import claim, RunBusy
for number, line in enumerate(sys.stdin):
    folder = Path(sys.argv[1]) / str(number % 3)
    while time.time() < float(line): pass
    try:
        with claim(folder) as held:
            print("won", held.number, flush=True)
            sys.stdin.readline()
            held.check()
    except RunBusy:
        print("busy", flush=True)
        sys.stdin.readline()
    print("released", flush=True)
"""


def test_of_processes_that_claim_at_once_one_wins(tmp_path):
    """Folders that are new, that a killed process held, and that were released; each taken several times."""
    for number in range(3):
        (tmp_path / str(number)).mkdir()
    foreign(tmp_path / "1", age=1000)
    processes = [start(ROUNDS, tmp_path) for _ in range(6)]

    def tell(line: object) -> list[str]:
        for process in processes:
            process.stdin.write(f"{line}\n")
            process.stdin.flush()
        return [process.stdout.readline().strip() for process in processes]

    for round_ in range(60):
        answers = tell(time.time() + (1 if round_ == 0 else 0.02))
        number = round_ // 3 + (2 if round_ % 3 == 1 else 1)
        assert sorted(answers) == ["busy"] * 5 + [f"won {number}"]
        assert f"claim.{number}" in names(tmp_path / str(round_ % 3))
        assert set(tell("")) == {"released"} and holder(tmp_path / str(round_ % 3)) is None
    for process in processes:
        process.communicate()
        assert process.returncode == 0


def test_two_takers_of_a_stale_claim_that_look_at_the_same_moment(tmp_path, monkeypatch):
    foreign(tmp_path, age=1000)
    together, wins = threading.Barrier(2), []
    real = module._alive

    def alive(path: Path) -> dict | None:
        judged = real(path)
        if path.name == "claim.1":
            together.wait(10)  # both have found it dead before either goes on
        return judged

    monkeypatch.setattr(module, "_alive", alive)
    ended = threading.Barrier(2)

    def take() -> None:
        try:
            with claim(tmp_path) as held:
                wins.append(held.number)
                ended.wait(10)
        except RunBusy:
            ended.wait(10)

    threads = [threading.Thread(target=take) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wins == [2] and names(tmp_path) == ["claim.2"]


def test_a_taker_who_slept_does_not_win_a_number_that_was_used_and_deleted(tmp_path, monkeypatch):
    foreign(tmp_path, age=1000)
    real, link = module._alive, os.link

    def late(aside: Path, path: Path) -> None:
        monkeypatch.undo()
        for number in (2, 3):  # two others come and go, or stay
            held = module._take(tmp_path, "claim")
            assert held.number == number
            if number == 2:
                held.release()
        aside.write_text("{}")  # a winner has removed it as half-written; let it be back in time
        link(aside, path)

    monkeypatch.setattr(os, "link", late)
    with pytest.raises(RunBusy, match=f"was taken over by process {os.getpid()}"):
        module._take(tmp_path, "claim")
    assert real(tmp_path / "claim.3")["pid"] == os.getpid()
    Claim(tmp_path, "claim", 3).check()


def test_a_released_claim_is_free_and_says_so(tmp_path):
    assert holder(tmp_path / "absent") is None and holder(tmp_path) is None
    for number in (1, 2, 3):
        with claim(tmp_path / "deep" / "er") as held:
            assert held.number == number and holder(held.folder)["pid"] == os.getpid()
            with pytest.raises(RunBusy), claim(held.folder):
                pass
            held.check()
        assert holder(held.folder) is None and names(held.folder) == [f"claim.{number}"]
    with pytest.raises(KeyError), claim(tmp_path):
        raise KeyError
    assert holder(tmp_path) is None


def test_claims_of_other_names_are_others(tmp_path):
    with claim(tmp_path), claim(tmp_path, "submit"), pytest.raises(RunBusy), claim(tmp_path, "submit"):
        pass
    assert names(tmp_path) == ["claim.1", "submit.1"]


def test_a_holder_that_another_followed_says_so_and_stays_quiet(tmp_path, monkeypatch):
    with claim(tmp_path) as held:
        foreign(tmp_path, number=2)
        before = (tmp_path / "claim.2").stat().st_mtime_ns
        for _ in range(2):
            assert held.lost()
            with pytest.raises(RunBusy, match="taken over by process .* on other"):
                held.check()
            held.path.unlink(missing_ok=True)  # as the other does next
    assert names(tmp_path) == ["claim.2"] and (tmp_path / "claim.2").stat().st_mtime_ns == before


def test_a_holder_gives_signs_of_life(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BEAT", 0.01)
    with claim(tmp_path) as held:
        os.utime(held.path, (0, 0))
        deadline = time.monotonic() + 10
        while held.path.stat().st_mtime == 0:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_waiting_for_a_busy_one(tmp_path, monkeypatch):
    path, naps = foreign(tmp_path), []

    def sleep(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) == 3:
            os.utime(path, (0, 0))

    monkeypatch.setattr(time, "sleep", sleep)
    with claim(tmp_path, wait=60) as held:
        assert held.number == 2 and len(naps) == 3
    foreign(tmp_path, number=2)
    clock = iter(range(100))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    with pytest.raises(RunBusy), claim(tmp_path, wait=5):
        pass
    assert len(naps) == 7


def test_where_there_are_no_links(tmp_path, monkeypatch):
    def link(*_: object) -> None:
        raise PermissionError("no links here")

    monkeypatch.setattr(os, "link", link)
    for number in (1, 2):
        with claim(tmp_path) as held:
            assert held.number == number and holder(tmp_path)["pid"] == os.getpid()
    (tmp_path / "claim.3").write_text("")  # another process is about to write it
    with pytest.raises(RunBusy, match="another process"), claim(tmp_path):
        pass
    os.utime(tmp_path / "claim.3", (0, 0))
    with claim(tmp_path) as held:
        assert held.number == 4


def test_an_answer_that_was_lost_on_the_way(tmp_path, monkeypatch):
    real = os.link

    def link(*arguments: Path) -> None:
        real(*arguments)
        real(*arguments)

    monkeypatch.setattr(os, "link", link)
    with claim(tmp_path) as held:
        assert held.number == 1


def test_a_folder_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"), claim(tmp_path / "file"):
        pass
    monkeypatch.setattr(
        Path, "write_text", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    with pytest.raises(OSError, match=f"cannot claim {tmp_path}: No space left"), claim(tmp_path):
        pass


def test_a_reader_who_may_not_write_still_sees_who_holds_it(tmp_path, monkeypatch):
    def none(**_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(module.tempfile, "TemporaryFile", none)
    path = foreign(tmp_path)
    assert holder(tmp_path)["host"] == "other"
    os.utime(path, (0, 0))
    assert holder(tmp_path) is None
