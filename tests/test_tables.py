"""Tables: from YAML to runs, launching what is missing, and back from records to numbers."""

from __future__ import annotations

import csv
import fcntl
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import cloudpickle
import pytest

from repro import aggregate, submit
from repro.launch import local as clusters
from repro.launch import plan
from repro.tables import table as tables
from repro.tables.selection import Selection
from seval.config import load
from seval.errors import ConfigError, RunBusy
from seval.run import Run

GOLDEN = Path(__file__).parent / "golden"
TABLE = """\
title: Two methods | and a chain
note: A table of made-up numbers.
folder: small
seeds: [0, 1, 2]
columns:
  γ=100: {}
  γ=10: {set: [DATASET.CIFAR10.IMB_FACTOR_L, 10]}
rows:
  Plain:       {config: plain}
  Plain, LA:   {config: plain, offset: logit_adjusted}
  Replay & Co: {config: replay, cells: {γ=10: null}}
  Deep:        {config: replay, set: [PREREQUISITE, [MEMO, middle, PREREQUISITE, [MEMO, first]]]}
reported:
  Plain:       {γ=100: [81.5, 0.41], γ=10: 70.25}
  Replay & Co: {γ=100: [60.0, 1.0]}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout of two small configurations and one table, `sweep`; the working directory is in it."""
    for name, text in {
        "configs/small/plain.yaml": "SOLVER: {MAX_ITER: 500}",
        "configs/small/replay.yaml": "SOLVER: {MAX_ITER: 1000}\nPREREQUISITE: [MEMO, first]",
        "paper_tables/sweep.yaml": TABLE,
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(tables, "CONFIGS", tmp_path / "configs")
    monkeypatch.setattr(tables, "TABLES", tmp_path / "paper_tables")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def cells_of(name: str = "sweep") -> dict[tuple[str, str], tables.Cell]:
    return {(cell.row, cell.column): cell for cell in tables.find_table(name).cells()}


def write_record(folder: Path, name: str, top1: float | None, seconds: float = 60.0) -> None:
    """As a run would leave it; the logit-adjusted reading is one point better, `last` one point worse."""

    def protocols(value: float | None) -> dict:
        return {"top1": {"median20": value, "last": None if value is None else value - 0.01}}

    results = {
        "test": {"ema": {"none": protocols(top1), "logit_adjusted": protocols(None if top1 is None else top1 + 0.01)}}
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "record.json").write_text(
        json.dumps(
            {
                "id": name,
                "results": results,
                "seconds": seconds,
                "provenance": {
                    "commit": "0123456789abcdef",
                    "dirty": False,
                    "device": "cpu (x86_64)",
                    "packages": {"seval": "1.0.0"},
                },
            }
        )
    )


def write_sweep() -> dict[tuple[str, str], list[float]]:
    """Records for all but a few runs; returns the values that belong to each cell."""
    cells = cells_of()
    given = {
        ("Plain", "γ=100"): [0.80, 0.82, 0.81],
        ("Plain", "γ=10"): [0.70, 0.7025, 0.705],
        ("Replay & Co", "γ=100"): [0.555, 0.575],
        ("Deep", "γ=100"): [0.6],
    }
    for key, values in given.items():
        for run, value in zip(cells[key].runs.values(), values, strict=False):
            for each in run.chain():
                write_record(each.folder, each.id, value)
    return given


# ---- from YAML to runs


def test_grid_is_row_by_row_and_shares_runs(folder: Path) -> None:
    cells = list(tables.find_table("sweep").cells())
    assert [(cell.row, cell.column) for cell in cells][:3] == [
        ("Plain", "γ=100"),
        ("Plain", "γ=10"),
        ("Plain, LA", "γ=100"),
    ]
    by_name = {(cell.row, cell.column): cell for cell in cells}
    plain, adjusted = by_name["Plain", "γ=100"], by_name["Plain, LA", "γ=100"]
    assert all(plain.runs[seed] is adjusted.runs[seed] for seed in (0, 1, 2))
    assert plain.reading == ("test", "ema", "none", "top1", "median20")
    assert adjusted.reading == ("test", "ema", "logit_adjusted", "top1", "median20")
    assert len({run.id for cell in cells for run in cell.runs.values()}) == 6 + 3 + 6
    expected = Run(load(folder / "configs/small/plain.yaml", ["DATASET.CIFAR10.IMB_FACTOR_L", 10, "SEED", 2]))
    assert by_name["Plain", "γ=10"].runs[2].id == expected.id
    assert by_name["Replay & Co", "γ=10"].runs == {}
    assert [len(run.chain()) for run in by_name["Deep", "γ=100"].runs.values()] == [3, 3, 3]


def test_later_level_wins_and_sets_add_up(folder: Path) -> None:
    (folder / "paper_tables/levels.yaml").write_text("""\
{folder: small, config: plain, metric: many, set: [MEMO, a], seeds: [7],
 columns: {c: {metric: few, set: [SOLVER.BASE_LR, 0.5]}},
 rows: {r: {}, s: {metric: medium, set: [MEMO, b], cells: {c: {network: raw, seeds: [8, 9]}}}}}""")
    cells = cells_of("levels")
    assert cells["r", "c"].reading.metric == "few" and list(cells["r", "c"].runs) == [7]
    assert cells["s", "c"].reading == ("test", "raw", "none", "medium", "median20")
    assert list(cells["s", "c"].runs) == [8, 9]
    cfg = cells["s", "c"].runs[8].cfg
    assert (cfg.MEMO, cfg.SOLVER.BASE_LR, cfg.SEED) == ("b", 0.5, 8)


def test_forced_settings_win_over_every_level(folder: Path) -> None:
    table = tables.find_table("sweep").forcing(rows=["Plain, LA"], columns=["γ=10"], seeds=[5], protocol="last")
    (cell,) = table.cells(["OUTPUT_DIR", "elsewhere"])
    assert list(cell.runs) == [5] and cell.reading[2:] == ("logit_adjusted", "top1", "last")
    assert cell.runs[5].folder.parent == Path("elsewhere")


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("folder: small", "foldr: small", "unknown key in .*: 'foldr'; did you mean 'folder'"),
        ("offset: logit_adjusted", "offst: x", "unknown key in row 'Plain, LA' .*'offst'; did you mean 'offset'"),
        ("offset: logit_adjusted", "offset: logit_adjust", "unknown offset .* did you mean 'logit_adjusted'"),
        ("offset: logit_adjusted", "protocol: median", "did you mean 'median20'"),
        ("  γ=100: {}", "  γ=100: {cells: {}}", "unknown key in column 'γ=100'"),
        ("cells: {γ=10: null}", "cells: {γ=11: null}", "did you mean 'γ=10"),
        ("  Replay & Co: {γ=100", "  Replay: {γ=100", "unknown row .*'Replay'; did you mean 'Replay & Co'"),
        ("γ=10: 70.25", "γ=10: [1, 2, 3]", "must be \\[mean, std\\]"),
        ("seeds: [0, 1, 2]", "seeds: [0, 0]", "seeds .* different whole numbers"),
        ("seeds: [0, 1, 2]", "seeds: 3", "seeds .* must be a list"),
        ("IMB_FACTOR_L, 10]", "IMB_FACTOR_L]", "KEY VALUE pairs"),
        ("IMB_FACTOR_L, 10]", "IMB_FACTR_L, 10]", "column 'γ=10': unknown key .* mean 'DATASET.CIFAR10.IMB_FACTOR_L'"),
        ("config: plain}", "config: plane}", "no configuration file .*plane.yaml; that folder has plain.yaml"),
        ("folder: small\n", "", "`folder` is given neither there nor for the table"),
        ("  Plain, LA: ", "  Plain: ", "'Plain' is given twice"),
        ("columns:", "columns: [", "cannot read"),
        ("rows:", "rows: 3\nset:", "rows in .* must be a mapping"),
    ],
)
def test_mistake_in_a_table_is_named(folder: Path, old: str, new: str, message: str) -> None:
    assert old in TABLE
    (folder / "paper_tables/bad.yaml").write_text(TABLE.replace(old, new, 1))
    with pytest.raises(ConfigError, match=re.compile(message, re.DOTALL)):
        cells_of("bad")


@pytest.mark.parametrize("main", [submit.main, aggregate.main])
@pytest.mark.parametrize(
    "argv",
    [
        ["--table", "swep"],
        [],
        ["--table", "sweep", "--jobs", "x"],
        ["--table", "sweep", "--no"],
        ["--table", "sweep", "--rows", "Plane"],
        ["--table", "sweep", "--protocol", "best"],
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(folder: Path, main, argv: list[str], capsys) -> None:
    assert main(argv) == 2
    out, err = capsys.readouterr()
    assert not out and err.startswith("error: ") and err.count("\n") == 1


def test_shipped_tables_load() -> None:
    for path in sorted(tables.TABLES.glob("*.yaml")):
        assert list(tables.find_table(path.stem).cells())
    cells = list(tables.find_table("demo").cells())
    assert [cell.row for cell in cells] == [
        "Supervised",
        "Supervised + LA",
        "FixMatch",
        "FixMatch + post-hoc LA",
        "SEVAL-PL",
        "SEVAL",
    ]
    assert len({run.id for cell in cells for last in cell.runs.values() for run in last.chain()}) == 15


# ---- launching what is missing


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
        assert pairs.pop("RUNTIME.THREADS") == 1 and pairs.pop("RUNTIME.PROGRESS") is False
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


# ---- back from records to numbers


def summarize(*more: str) -> int:
    return aggregate.main(["--table", "sweep", "--out", "out", *more])


def test_page_equals_the_golden_one(folder: Path) -> None:
    """After a wanted change delete the golden file: the test then writes it anew, and fails once."""
    write_sweep()
    assert summarize() == 0
    page, golden = Path("out/sweep.md").read_text(), GOLDEN / "sweep.md"
    if not golden.exists():
        golden.write_text(page)
        pytest.fail(f"wrote {golden}; look at it and run again")
    assert page == golden.read_text()


def test_page_means_what_it_says(folder: Path) -> None:
    given = write_sweep()
    summarize()
    lines = [
        [text.strip() for text in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in Path("out/sweep.md").read_text().splitlines()
        if line.startswith("|")
    ]
    header, rows = lines[0], {line[0]: line[1:] for line in lines[2:]}
    assert header == ["Method", "γ=100", "reported", "ours − reported", "γ=10", "reported", "ours − reported"]
    for (row, column), values in given.items():
        percent = [100 * value for value in values]
        at = header.index(column) - 1
        text = rows[row][at]
        assert text.startswith(f"{statistics.fmean(percent):.2f}")
        if len(values) > 1:
            assert f" ± {statistics.pstdev(percent):.2f}" in text
        assert text.endswith(f"[{len(values)}/3]") == (len(values) < 3)
        reported, difference = rows[row][at + 1 : at + 3]
        if reported:
            expected = statistics.fmean(percent) - float(reported.split()[0])
            assert float(difference.replace("−", "-")) == pytest.approx(expected, abs=0.0051)
    assert rows["Plain"][1] == "81.5 ± 0.41" and rows["Plain"][4] == "70.25"
    assert rows["Plain, LA"][0].startswith("82.00")
    assert rows["Deep"][0] == "60.00 [1/3]" and rows["Deep"][3] == "—" and rows["Replay & Co"][3] == ""


def test_comma_separated_numbers_agree(folder: Path) -> None:
    given = write_sweep()
    summarize()
    text = Path("out/sweep.csv").read_text()
    lines = {(line["row"], line["column"]): line for line in csv.DictReader(text.splitlines())}
    assert len(lines) == 8
    for key, values in given.items():
        line, percent = lines[key], [100 * value for value in values]
        assert [float(value) for value in line["values"].split()] == pytest.approx(percent)
        assert float(line["mean"]) == pytest.approx(statistics.fmean(percent), abs=1e-4)
        assert float(line["std"]) == pytest.approx(statistics.pstdev(percent), abs=1e-4)
        assert line["ids"].split() == [cells_of()[key].runs[int(seed)].id for seed in line["seeds"].split()]
        assert (int(line["n"]), line["protocol"]) == (len(values), "median20")
    assert lines["Deep", "γ=10"]["mean"] == "" and lines["Plain", "γ=10"]["reported_mean"] == "70.25"


def test_latex_is_balanced_and_escaped(folder: Path) -> None:
    write_sweep()
    summarize()
    text = Path("out/sweep.tex").read_text()
    body = re.sub(r"\\.", "", text)
    assert body.count("{") == body.count("}") and body.count("$") % 2 == 0
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len(rows) == 5 and {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {6}
    assert r"Replay \& Co" in text and r"$\pm$" in text and text.isascii()


def test_strict_and_other_protocol(folder: Path, capsys) -> None:
    write_sweep()
    assert summarize("--strict") == 1
    assert "cells are missing; python repro/submit.py --table sweep" in capsys.readouterr().err
    assert summarize("--protocol", "last") == 0
    page = Path("out/sweep.md").read_text()
    assert "80.00 ± 0.82" in page and "the last evaluation (`last`)" in page
    assert not [path for path in Path("out").iterdir() if path.suffix not in (".md", ".csv", ".tex")]


def test_empty_table_is_printed(folder: Path, capsys) -> None:
    assert summarize() == 0
    assert capsys.readouterr().out.count("—") >= 5


def test_null_is_missing_but_an_unknown_offset_is_an_error(folder: Path, capsys) -> None:
    cell = cells_of()["Plain", "γ=100"]
    write_record(cell.runs[0].folder, cell.runs[0].id, None)
    write_record(cell.runs[1].folder, cell.runs[1].id, 0.5)
    assert cell.values() == {1: 50.0}
    (folder / "paper_tables/sweep.yaml").write_text(TABLE.replace("logit_adjusted", "seval"))
    assert summarize() == 2
    assert "recorded no 'seval' there, only none, logit_adjusted" in capsys.readouterr().err
