"""Doing missing runs on this machine: once, in order, whatever fails."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import cloudpickle
import pytest

from repro import submit
from repro.launch import local as clusters
from repro.launch import plan
from repro.tables import table as tables
from repro.tables.selection import Selection
from seval.config import load
from seval.errors import RunBusy
from seval.run import Run
from tests.tables.conftest import cells_of, write_record


@pytest.fixture
def executed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Runs that take no time, in this process; collects (MEMO, SEED) of those executed. MEMO `broken` fails."""
    done = []

    def execute(self: Run, stop: object = None) -> None:
        done.append((self.cfg.MEMO, self.cfg.SEED))
        before = self.prerequisite()
        assert before is None or before.record() is not None
        if (self.cfg.MEMO, self.cfg.SEED) in (("first", 1), ("", 0)) and (Path("broken")).exists():
            raise ValueError("made to fail\nin two lines")
        write_record(self.folder, self.id, 0.5)

    monkeypatch.setattr(Run, "execute", execute)
    return done


LOCAL = ["--table", "sweep", "--cluster", "local"]


def launch(*more: str) -> int:
    return submit.main(["--table", "sweep", "--cluster", "debug", *more])


def test_second_launch_does_nothing_and_a_lost_record_is_one_run(executed: list, capsys) -> None:
    runs = {run.id for cell in cells_of().values() for last in cell.runs.values() for run in last.chain()}
    assert launch("--dry-run") == 0 and not executed
    assert f"from {len(runs)} runs\nruns: {len(runs)}: {len(runs)} never submitted\n" in capsys.readouterr().out
    assert launch() == 0 and len(executed) == len(runs)
    assert launch() == 0 and len(executed) == len(runs) and "nothing to do" in capsys.readouterr().out
    (cells_of()["Replay & Co", "γ=100"].runs[1].folder / "record.json").unlink()
    assert launch() == 0 and len(executed) == len(runs) + 1
    first = cells_of()["Replay & Co", "γ=100"].runs[1].prerequisite()
    (first.folder / "record.json").unlink()  # what stands on it has its own record
    assert launch() == 0 and len(executed) == len(runs) + 1


def test_what_is_done_is_done_again_only_where_asked_and_what_was_there_is_kept(executed: list, capsys) -> None:
    seed, last = next(iter(cells_of()["Deep", "γ=10"].runs.items()))
    deep = ("--rows", "Deep", "--columns", "γ=10", "--seeds", str(seed))
    assert launch(*deep) == 0
    assert launch(*deep, "--retry", "done", "--dry-run") == 0 and last.done()
    assert "is done again; what was there would go to" in capsys.readouterr().out
    assert launch(*deep, "--retry", "done") == 0
    assert executed == [("first", seed), ("middle", seed), ("", seed), ("", seed)]  # not what it depends on
    assert (last.folder.parent / ".old" / f"{last.id}.1" / "record.json").exists()
    (last.folder / "record.json").write_text("damaged")
    assert launch(*deep) == 2 and launch(*deep, "--retry", "done") == 0 and len(executed) == 5


def test_selection_runs_only_what_it_reads(executed: list) -> None:
    assert launch("--rows", "Deep", "--columns", "γ=10", "--seeds", "4") == 0
    assert executed == [("first", 4), ("middle", 4), ("", 4)]


def test_failure_takes_only_its_dependants_along(executed: list, folder: Path, capsys) -> None:
    (folder / "broken").touch()
    assert launch("--columns", "γ=100") == 1
    out, err = capsys.readouterr()
    missing = {
        key[0]: [seed for seed, run in cell.runs.items() if run.record() is None]
        for key, cell in cells_of().items()
        if key[1] == "γ=100"
    }
    assert missing == {"Plain": [0], "Plain, LA": [0], "Replay & Co": [0, 1], "Deep": [0, 1]}
    assert "FAILED, ValueError: made to fail (log: " in out and "FAILED, not started, it depends on" in out
    assert "python repro/submit.py --table sweep --cluster debug --columns γ=100" in err.replace("'", "")
    log = Path(re.search(r"\(log: (.*?)\)", out)[1])
    assert "Traceback" in log.read_text()
    (folder / "broken").unlink()
    executed.clear()
    assert launch("--columns", "γ=100") == 0
    assert sorted(executed) == sorted([("", 0)] * 3 + [("first", 1), ("middle", 1)] + [("", 1)] * 2)


def test_levels_and_urgency(folder: Path) -> None:
    tasks = plan.plan(Selection({"sweep": list(tables.find_table("sweep").cells())}))
    levels = plan.levels(tasks)
    assert [len(level) for level in levels] == [6 + 6, 6 + 3, 6]
    for level in levels:  # those with a k-th dependant are a prefix of their level
        dependants = [sum(task.needs == each.run.id for task in tasks.values()) for each in level]
        assert dependants == sorted(dependants, reverse=True)
    assert all(task.needs in {each.run.id for each in levels[0]} for task in levels[1])
    steps = [task.steps for task in plan.by_urgency(tasks)]
    assert steps[-6:] == [500] * 6, "runs nobody waits for come last"
    order = [task.run.id for task in plan.by_urgency(tasks)]
    assert all(order.index(task.needs) < order.index(name) for name, task in tasks.items() if task.needs)
    assert order[0] in {task.needs for task in tasks.values()}


def test_settings_of_a_job_lead_to_the_same_run(folder: Path) -> None:
    for cell in cells_of().values():
        for last in cell.runs.values():
            for run in last.chain():
                again = Run(load((), plan.words(run, **{"RUNTIME.THREADS": 1, "GPU_ID": 1})))
                assert (again.id, again.folder) == (run.id, run.folder)
                assert again.cfg.RUNTIME.THREADS == 1 and [each.id for each in again.chain()] == [
                    each.id for each in run.chain()
                ]


@pytest.fixture
def workers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Replaces what submitit's processes do: note the start, sleep, note the end, leave a record; seed 1 dies."""
    monkeypatch.setattr(clusters, "cores", lambda: 2)
    journal, record = folder / "journal", {}
    for cell in cells_of().values():
        for last in cell.runs.values():
            for run in last.chain():
                write_record(run.folder, run.id, 0.5)
                record[repr(plan.words(run))] = run.folder
                (run.folder / "record.json").rename(run.folder / "record.later")
    end_with = clusters.end_with

    def work_under(lock: str, devices: str | None, settings: list) -> None:
        import os
        import time

        end_with(lock)
        pairs = dict(zip(settings[::2], settings[1::2], strict=True))
        assert pairs.pop("RUNTIME.THREADS") == 1 and pairs.pop("RUNTIME.PROGRESS") == "lines"
        assert os.environ["OMP_NUM_THREADS"] == "1"
        target = record[repr([word for pair in pairs.items() for word in pair])]
        with journal.open("a") as file:
            file.write(f"start {target.name} {os.getpid()}\n")
        time.sleep(60 if pairs.get("SEED") == 2 else 0.1)
        if pairs.get("SEED") == 1:
            os.kill(os.getpid(), 9)
        (target / "record.later").rename(target / "record.json")
        with journal.open("a") as file:
            file.write(f"end {target.name}\n")

    monkeypatch.setattr(clusters, "work_under", work_under)
    cloudpickle.register_pickle_by_value(clusters)  # so that the processes need not import PyTorch
    yield journal
    cloudpickle.unregister_pickle_by_value(clusters)


def test_local_processes_keep_to_the_chain_and_outlive_a_death(workers: Path, capsys) -> None:
    assert submit.main([*LOCAL, "--rows", "Deep", "Plain", "--columns", "γ=100", "--seeds", "0", "1"]) == 1
    out, err = capsys.readouterr()
    lines = [line.split()[:2] for line in workers.read_text().splitlines()]
    chain = [run.id for run in cells_of()["Deep", "γ=100"].runs[0].chain()]
    assert [name for what, name in lines if what == "end" and name in chain] == chain
    for before, after in zip(chain, chain[1:], strict=False):
        assert lines.index(["end", before]) < lines.index(["start", after])
    assert out.count("FAILED, it ended without a message; was it killed") == 2 and out.count("depends on") == 2
    assert "4 of 8 runs are missing" in err and "2 at once, one core each" in out
    assert submit.main([*LOCAL, "--rows", "Deep", "Plain", "--columns", "γ=100", "--seeds", "0"]) == 0


def test_interrupt_ends_the_processes(workers: Path, capsys) -> None:
    def stop() -> None:
        while not workers.exists() or len(workers.read_text().splitlines()) < 2:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop, daemon=True).start()
    assert submit.main([*LOCAL, "--columns", "γ=100", "--seeds", "2"]) == 130
    assert "The same command resumes" in capsys.readouterr().err
    for line in workers.read_text().splitlines():
        with pytest.raises(ProcessLookupError):
            os.kill(int(line.split()[2]), 0)


def test_a_worker_ends_when_the_lock_is_let_go(tmp_path: Path) -> None:
    code = "import pickle, sys, time; pickle.load(sys.stdin.buffer)(sys.argv[1]); print(flush=True); time.sleep(60)"
    cloudpickle.register_pickle_by_value(clusters)
    function = cloudpickle.dumps(clusters.end_with)
    cloudpickle.unregister_pickle_by_value(clusters)
    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        child = subprocess.Popen([sys.executable, "-c", code, lock.name], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        child.stdin.write(function)
        child.stdin.close()
        child.stdout.readline()
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(0.3)
    assert child.wait(10) == 1
    child.stdout.close()


def test_work_waits_for_another_process(monkeypatch: pytest.MonkeyPatch, folder: Path, capsys) -> None:
    answers = [RunBusy("busy elsewhere"), None]

    def execute(self: Run, stop: object) -> None:
        if (answer := answers.pop(0)) is not None:
            raise answer

    monkeypatch.setattr(Run, "execute", execute)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    clusters.work([])
    assert not answers and "busy elsewhere" in capsys.readouterr().out
