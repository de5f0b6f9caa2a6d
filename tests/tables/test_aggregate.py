"""Writing pages, whatever goes wrong: files that cannot be read or written, damaged records, processes that died."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import time
from pathlib import Path

import pytest

from repro import aggregate, status, submit
from repro.tables.reading import Reading
from seval.errors import RecordError
from seval.run import Run
from tests.tables.commands import call
from tests.tables.conftest import cells_of, write_record, write_sweep

GIVEN = ["--table", "sweep", "--out", "out"]
FAULTS = ("os.open", "io.open", "os.replace", "os.fsync", "os.mkdir", "os.scandir", "os.stat", "os.unlink")


class Faulty:
    """Lets the n-th call that touches the runs or the pages fail, or does something else in its place."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, number: int, what: BaseException) -> None:
        self.left, self.what, self.hit = number, what, ""
        for name in FAULTS:
            module, _, function = name.partition(".")
            here = {"os": os, "io": io}[module]
            monkeypatch.setattr(here, function, self.instead(name, getattr(here, function)))

    def instead(self, name: str, real):
        def call(*given, **more):
            text = str(given[0]) if given else ""
            if isinstance(given[0], int) or "out" in Path(text).parts or "record.json" in text or text == "out":
                self.left -= 1
                if not self.left:
                    self.hit = f"{name} {text}"
                    raise self.what
            return real(*given, **more)

        return call


@pytest.mark.parametrize("number", [1, 2, 5, 13, 34, 44, 48, 52, 56, 60])
@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EACCES])
def test_a_failing_file_call_is_one_line_and_pages_stay_whole(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, number: int, code: int
) -> None:
    write_sweep()
    assert aggregate.main(GIVEN) == 0
    before = {path.name: path.read_bytes() for path in Path("out").iterdir()}
    capsys.readouterr()
    with monkeypatch.context() as patch:
        fault = Faulty(patch, number, OSError(code, os.strerror(code)))
        found = aggregate.main(GIVEN)
    out, err = capsys.readouterr()
    assert found in (0, 2) and fault.left < 64
    if found == 2:
        assert not out and err.startswith("error: ") and err.count("\n") == 1 and os.strerror(code) in err
    after = {path.name: path.read_bytes() for path in Path("out").iterdir() if not path.name.startswith(".")}
    assert after == before
    assert aggregate.main(GIVEN) == 0


@pytest.mark.parametrize("number", range(1, 60, 6))
def test_ctrl_c_is_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, number: int
) -> None:
    write_sweep()
    Path("out").mkdir()
    with monkeypatch.context() as patch:
        fault = Faulty(patch, number, KeyboardInterrupt())
        found = aggregate.main(GIVEN)
    assert (found, capsys.readouterr().err) == (130, "interrupted\n") if fault.hit else found == 0
    assert not list(Path("out").glob(".*")) or "unlink" in fault.hit


DAMAGED = {
    "not JSON": "{",
    "a number": "3",
    "a list": "[]",
    "empty": "",
    "deep": "[" * 100_000,
    "results": '{"id": ID, "results": 3}',
    "id": '{"id": 1, "results": {}}',
    "another": '{"id": "0123456789", "results": {}}',
    "leaf": '{"id": ID, "results": {"test": {"ema": {"none": {"top1": {"median20": "x"}}}}}}',
    "branch": '{"id": ID, "results": {"test": {"ema": 3}}}',
    "infinite": '{"id": ID, "results": {"test": {"ema": {"none": {"top1": {"median20": 1e999}}}}}}',
    "percent": '{"id": ID, "results": {"test": {"ema": {"none": {"top1": {"median20": 81.5}}}}}}',
    "seconds": '{"id": ID, "seconds": "3", "results": {"test": {"ema": {"none": {"top1": {"median20": 0.5}}}}}}',
    "provenance": '{"id": ID, "provenance": 3, "results": {"test": {"ema": {"none": {"top1": {"median20": 0.5}}}}}}',
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_record_costs_its_run_only(folder: Path, capsys: pytest.CaptureFixture, kind: str) -> None:
    write_sweep()
    run = cells_of()["Plain", "γ=10"].runs[1]
    path = run.folder / "record.json"
    path.write_text(DAMAGED[kind].replace("ID", f'"{run.id}"'), encoding="utf-8")
    assert aggregate.main(GIVEN) == 2
    out, err = capsys.readouterr()
    damage, short, _ = err.splitlines()
    assert damage.startswith("error: sweep: Plain, γ=10, seed 1: ") and str(path) in damage and len(damage) < 700
    assert short.startswith("runs of 5 of 8 cells are missing")
    text = Path("out/sweep.csv").read_text(encoding="utf-8")
    lines = {(line["row"], line["column"]): line for line in csv.DictReader(text.splitlines())}
    assert lines["Plain", "γ=10"]["seeds"] == lines["Plain, LA", "γ=10"]["seeds"] == "0 2"
    assert lines["Plain", "γ=100"]["seeds"] == "0 1 2" and "[2/3]" in out


@pytest.mark.parametrize("kind", ["not JSON", "results", "another"])
def test_status_and_submit_name_it_and_go_on(
    folder: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    done = []

    def execute(run: Run, stop: object = None) -> None:
        done.append(run.cfg.SEED)
        write_record(run.folder, run.id, 0.5)

    monkeypatch.setattr(Run, "execute", execute)
    replay = cells_of()["Replay & Co", "γ=100"].runs
    for seed in (0, 1, 2):
        write_record((before := replay[seed].prerequisite()).folder, before.id, 0.5)
    path = replay[1].prerequisite().folder / "record.json"
    path.write_text(DAMAGED[kind].replace("ID", f'"{path.parent.name}"'), encoding="utf-8")
    row = ["--table", "sweep", "--rows", "Replay & Co"]
    assert status.main(row) == 2
    out, err = capsys.readouterr()
    assert "! damaged record" in out
    assert status.main([*row, "--json"]) == 2
    found = {each["id"]: each["damaged"] for each in json.loads(capsys.readouterr().out)}
    assert str(path) in found.pop(path.parent.name) and set(found.values()) == {None}
    for words, code in (([*row, "--cluster", "debug", "--dry-run"], 2), ([*row, "--cluster", "debug"], 2)):
        assert submit.main(words) == code
        err = capsys.readouterr().err
        lines = [line for line in err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1 and str(path) in lines[0]
        assert lines[0].startswith("error: sweep: Replay & Co (prerequisite), γ=100, seed 1: ")
    assert sorted(done) == [0, 2], "what depends on the damaged record is not started"


def test_by_class_readings_of_damaged_records_are_refused() -> None:
    reading = Reading(metric="low_recall_low_precision", protocol="last")
    good = {"recall": [0.5, None], "precision": [None, None]}
    assert reading.of({"id": "a", "results": {}, "per_class": {"none": good}}) == 1.0
    for bad in (3, [], {}, good | {"recall": [0.5]}, good | {"precision": ["x", 1]}, good | {"recall": 3}):
        with pytest.raises(RecordError, match="recall and precision"):
            reading.of({"id": "a", "results": {}, "per_class": {"none": bad}})


def test_what_killed_processes_left_is_swept_and_nothing_else(folder: Path) -> None:
    out = Path("out")
    out.mkdir()
    old = (".sweep.md.1", ".sweep.csv.4711", ".sweep.tex.0123abcd")
    kept = (".sweep.csv.new", ".sweep2.md.1", ".sweep.yaml.1", "sweep.md.1", ".gitignore", ".demo.md.1")
    for name in (*old, *kept):
        (out / name).touch()
        os.utime(out / name, (time.time() - 7200,) * 2)
    os.utime(out / ".sweep.csv.new")
    (out / ".sweep.md.folder").mkdir()
    os.utime(out / ".sweep.md.folder", (time.time() - 7200,) * 2)
    assert aggregate.main(GIVEN) == 0
    left = {path.name for path in out.iterdir()} - {"sweep.md", "sweep.csv", "sweep.tex"}
    assert left == {*kept, ".sweep.md.folder"}


def test_every_record_is_read_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All three pages are of the same records, even while runs end."""
    write_sweep()
    read, record = [], Run.record
    monkeypatch.setattr(Run, "record", lambda run: read.append(run.id) or record(run))
    assert aggregate.main(GIVEN) == 0
    assert len(read) == len(set(read)) > 10


def test_a_full_standard_output_is_one_line(folder: Path) -> None:
    done = call("aggregate", "--table", "demo", "--out", str(folder), stdout="/dev/full")
    assert done.returncode == 2 and done.stderr == "error: [Errno 28] No space left on device\n"
    assert {path.name for path in folder.glob("demo.*")} == {"demo.csv", "demo.md", "demo.tex"}
