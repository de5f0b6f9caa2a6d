"""Deleting runs: which are refused, and that nothing else is touched."""

from __future__ import annotations

import fcntl
import io
import os
import shutil
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path

import pytest

from repro.listing import removal
from seval.claim import claim
from seval.run import Run
from tests.listing.conftest import evaluations, started
from tests.settings import ROOT, small

A, B, C, D = "aaaaaaaaaa", "bbbbbbbbbb", "cccccccccc", "dddddddddd"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    return lambda text: monkeypatch.setattr(sys, "stdin", Terminal(text))


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("text", "gone"), [("y\n", True), ("YES\n", True), ("n\n", False), ("\n", False), ("", False)])
def test_it_asks_on_a_terminal(write, call, answer, text, gone):
    write(A)
    answer(text)
    code, out, err = call("rm", "a")
    assert (
        (code, err) == (0 if gone else 1, "") and "fixmatch · tiny · seed 0: done" in out and "delete this run?" in out
    )
    assert Path("runs", A).exists() != gone and ("nothing is deleted" in out) != gone


def test_elsewhere_it_does_nothing_without_yes(write, call, monkeypatch):
    write(A)
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    code, out, err = call("rm", "a")
    assert code == 2 and "--yes" in err and Path("runs", A, "record.json").exists()


def test_only_the_folder_of_the_run_goes(write, call, tmp_path):
    for id in (A, B):
        evaluations(write(id), 0.1)
    for name in (f"submitit/{A}/1_log.err", "slurm/logs/1.out", f".old/{A}.1/record.json", f"{A}.bak/record.json"):
        (tmp_path / "runs" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "runs" / name).write_text("x")
    before = files(tmp_path)
    code, out, err = call("rm", "a", "--yes")
    assert (code, err) == (0, "") and f"deleted runs/{A}" in out
    assert files(tmp_path) == {name: text for name, text in before.items() if not name.startswith(f"runs/{A}/")}


def test_what_others_depend_on_is_kept_and_they_are_named(write, call):
    write(A)
    write(B, prerequisites=[A], method="replay")
    write(C, prerequisites=[A, B])
    write(D)
    for words, named in ((["a"], B), (["a", "b"], C), (["b", "d"], C), (["a", "c"], B)):
        code, out, err = call("rm", *words, "--yes")
        assert code == 2 and f"is needed by {named}" in err and "Nothing is deleted" in err
        assert len(os.listdir("runs")) == 4
    assert call("rm", "a", "b", "c", "--yes")[1].split("deleted ")[1:] == [f"runs/{id}\n" for id in (C, B, A)]
    assert os.listdir("runs") == [D]


def test_what_a_run_that_has_begun_depends_on_is_kept(write, call, tmp_path):
    write(A)
    started(tmp_path / "runs" / B, needs=A)
    code, out, err = call("rm", "a", "--yes")
    assert code == 2 and f"is needed by {B} fixmatch · tiny · seed 1" in err and Path("runs", A).exists()


def test_what_a_damaged_run_depends_on_is_kept(trained, call, tmp_path):
    """Also where only its config.yaml says so, as of an older version."""
    folder, ids = trained
    target = tmp_path / "runs"
    shutil.copytree(folder, target)
    last, before = ids["fixmatch_seval_load"], ids["fixmatch_seval_load, before"]
    (target / last / "record.json").write_text("{")
    for name in ("run.json", "record.json"):
        (target / last / name).unlink(missing_ok=True)
        code, out, err = call("--output-dir", target, "rm", before, "--yes")
        assert code == 2 and f"{before} is needed by {last}" in err and (target / before).exists()
    (target / last / "config.yaml").unlink()
    code, out, err = call("--output-dir", target, "rm", before, "--yes")
    assert code == 0 and err == f"warning: what {last} may depend on is not known\n"


def test_what_is_being_trained_is_kept(write, call, tmp_path, monkeypatch):
    write(A)
    started(tmp_path / "runs" / B)
    with claim(tmp_path / "runs" / B):
        code, out, err = call("rm", "a", "b", "--yes")
        assert code == 2 and "bbbbbbbbbb is being trained" in err and len(os.listdir("runs")) == 2
        monkeypatch.setattr(removal, "check", lambda *_: None)  # it begins after it was looked at
        code, out, err = call("rm", "b", "--yes")
        assert code == 2 and "is held by process" in err and Path("runs", B, "run.json").exists()
    monkeypatch.undo()
    assert call("--output-dir", tmp_path / "runs", "rm", "b", "--yes")[0] == 0


def test_a_link_is_kept(write, call, tmp_path):
    (write(A)).rename(tmp_path / "elsewhere")
    Path("runs", A).symlink_to(tmp_path / "elsewhere")
    code, out, err = call("rm", "a", "--yes")
    assert code == 2 and "is a link" in err and (tmp_path / "elsewhere" / "record.json").exists()


def test_damaged_runs_can_be_deleted(write, call, tmp_path):
    write(A)
    (tmp_path / "runs" / A / "record.json").write_text("{")
    (tmp_path / "runs" / B).mkdir()
    assert call("rm", "a", "b", "--yes")[0] == 0 and os.listdir("runs") == []


def test_a_word_that_is_no_run_deletes_nothing(write, call):
    write(A)
    assert call("rm", "a", "x", "--yes")[0] == 2 and Path("runs", A).exists()


def test_what_a_killed_call_has_left_is_deleted_by_the_next(write, call, monkeypatch):
    write(A)
    write(B)
    with monkeypatch.context() as patch:
        patch.setattr(removal.shutil, "rmtree", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        assert call("rm", "a", "--yes")[0] == 130
    assert [name.partition("aaaaaaaaaa")[0] for name in sorted(os.listdir("runs"))] == [".removed.", "bbbbbbbbbb"]
    assert call("rm", "b", "--yes")[0] == 0 and os.listdir("runs") == []


def test_a_run_that_was_deleted_is_the_only_one_that_is_done_again(trained, tmp_path, call):
    folder, ids = trained
    target = tmp_path / "runs"
    shutil.copytree(folder, target)
    assert call("--output-dir", target, "rm", ids["fixmatch"], "--yes")[0] == 0
    chain = [
        run
        for method in ("supervised", "fixmatch", "fixmatch_seval_load")
        for run in Run(small(method, target)).chain()
    ]
    assert [run.id for run in chain if run.state() != "done"] == [ids["fixmatch"]]


def test_as_a_process_it_asks_nobody(write, tmp_path):
    write(A)
    given = [sys.executable, str(ROOT / "repro" / "runs.py"), "rm", "a"]
    done = subprocess.run(given, cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8")
    assert done.returncode == 2 and done.stderr.startswith("error: nobody can be asked") and Path("runs", A).exists()


def test_it_asks_on_a_real_terminal(write, tmp_path):
    write(A)
    write(B)
    for id, text, gone in ((A, b"n\n", False), (A, b"y\n", True), (B, b"\x03", False)):
        ours, theirs = os.openpty()
        given = [sys.executable, str(ROOT / "repro" / "runs.py"), "rm", id]
        child = subprocess.Popen(
            given, cwd=tmp_path, stdin=theirs, stdout=theirs, stderr=theirs, preexec_fn=_own_terminal
        )
        os.close(theirs)
        said = b""
        while b"[y/N]" not in said:
            said += os.read(ours, 1000)
        os.write(ours, text)
        assert child.wait(60) == (130 if text == b"\x03" else not gone)
        os.close(ours)
        assert Path("runs", id).exists() != gone


def _own_terminal() -> None:
    """So that ^C, written to it, is a signal."""
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
