"""What repro/status.py shows: a sign for every seed, failures with their reason and log, JSON."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable

import pytest

from repro import status, submit
from tests.launch.conftest import ONE, PAIR, Lab, table, with_metrics


@pytest.fixture
def mixed(lab: Lab) -> Lab:
    """Of fifteen runs some are done, running, waiting, timed out, out of memory."""
    lab.submit()
    lab.done("Plain 0", "Replay 0/1")
    lab.fake.become(lab.element("Plain 1"), "RUNNING")
    folder = lab.names()["Plain 1"].folder
    folder.mkdir(parents=True)
    with_metrics(folder, step=215, progress=0.43, seconds=3)
    lab.failed("Plain 2", "oom", "RuntimeError: CUDA out of memory")
    lab.fake.end(lab.element("Replay 1/1"), "TIMEOUT")
    lab.fake.end(lab.element("Replay 1"))
    lab.fake.become(lab.element("Replay 2/1"), "RUNNING")
    folder = lab.names()["Replay 2/1"].folder
    folder.mkdir(parents=True)
    with_metrics(folder, step=100, progress=0.1, seconds=3)
    return lab


def test_the_board_has_a_sign_for_every_seed(mixed: Lab) -> None:
    said = mixed.status()
    rows = {line.split("  ")[0]: line.split()[1:] for line in said.splitlines()}
    assert rows["Plain"] == ["✓", "43%", "M"]
    assert rows["Replay"] == ["w100%", "c", "w10%"]  # with the share of the run it waits for
    assert rows["Deep"] == ["w0%", "w0%", "w0%"]
    assert "sweep: 15 runs: 2 done, 2 running" in said and "1 timed out, 1 canceled, 1 out of memory" in said
    assert (
        "n% running" in said
        and "GPU-seconds spent; left: about 1 GPU-minute" in said
        and "at 2 runs at once, done in" in said
    )


def test_failures_come_with_reason_and_log(mixed: Lab) -> None:
    made = mixed.ledgers()
    id = mixed.names()["Plain 2"].id
    (index,) = [k for each in made for k, element in enumerate(each.elements) if element == [id]]
    (job,) = {
        number.partition("_")[0]
        for number, (name, *_) in mixed.fake.queue().items()
        if name == next(each.name for each in made if [id] in each.elements)
    }
    log = mixed.runs / "slurm" / "logs" / f"{job}_{index}_0_log.out"
    log.write_text("...")
    said = mixed.status("--failed")
    assert f"{id}  sweep: Plain, LT, seed 2: out of memory\n    RuntimeError: CUDA out of memory\n    log: " in said
    assert str(log.relative_to(mixed.folder)) in said and "--retry oom timeout" in said
    assert f"{mixed.names()['Replay 1/1'].id}  sweep: Replay (prerequisite), LT, seed 1: timed out" in said
    assert said.count(": canceled") == 1 and "done" not in said.replace("which is not done", "")


def test_json_has_every_run(mixed: Lab) -> None:
    found = {each["id"]: each for each in json.loads(mixed.status("--json"))}
    assert len(found) == 15
    names = mixed.names()
    assert found[names["Plain 1"].id]["progress"] == 0.43 and found[names["Plain 1"].id]["state"] == "running"
    assert found[names["Plain 1"].id]["job"] == mixed.element("Plain 1")
    assert found[names["Plain 2"].id]["failure"]["error"] == "RuntimeError: CUDA out of memory"
    assert found[names["Plain 0"].id]["failure"] is None


def test_watching_shows_it_until_it_is_stopped(mixed: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    rounds: list[float] = []

    def sleep(seconds: float) -> None:
        if seconds < 1:  # of `subprocess`
            return
        rounds.append(seconds)
        if len(rounds) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", sleep)
    mixed.capsys.readouterr()
    assert status.main(["--table", "sweep", "--site", "site.yaml", "--watch", "7"]) == 130
    out, err = mixed.capsys.readouterr()
    times = re.findall(r"^--- \d{4}-\d\d-\d\d \d\d:\d\d:\d\d ---$", out, re.MULTILINE)
    assert out.count("sweep: 15 runs") == len(times) == 2 and rounds == [7, 7] and err.strip() == "interrupted"


def test_status_says_where_slurm_is_silent_and_shows_the_rest(mixed: Lab) -> None:
    mixed.fake.plan("squeue", "always down")
    mixed.capsys.readouterr()
    assert status.main(["--table", "sweep", "--site", "site.yaml"]) == 0
    out, err = mixed.capsys.readouterr()
    assert "2 done" in out and "SLURM does not answer" in err and err.count("\n") == 1
    assert status.main(["--table", "sweep", "--site", "site.yaml", "--json"]) == 0
    assert len(json.loads(mixed.capsys.readouterr().out)) == 15


@pytest.mark.parametrize("main", [status.main, submit.main])
def test_a_reader_that_leaves_is_no_error(lab: Lab, main: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed:
        def write(self, text: str) -> int:
            raise BrokenPipeError

        def flush(self) -> None:
            raise BrokenPipeError

        def fileno(self) -> int:
            return self.file.fileno()

        def isatty(self) -> bool:
            return False

    closed = Closed()
    with (lab.folder / "out").open("w") as closed.file:
        monkeypatch.setattr(sys, "stdout", closed)
        more = ["--cluster", "slurm", "--dry-run"] if main is submit.main else []
        code = main(["--table", "sweep", "--site", "site.yaml", *more])
        monkeypatch.undo()
    assert code == 0


def test_all_is_every_numbered_table_and_shared_runs_count_once(lab: Lab) -> None:
    (lab.folder / "paper_tables/table2.yaml").write_text(table(ONE, seeds=[0, 1]))
    (lab.folder / "paper_tables/table10.yaml").write_text(table(PAIR, rows={"Same": {"config": "plain"}}))
    lab.capsys.readouterr()
    assert status.main(["--all", "--site", "site.yaml"]) == 0
    out = lab.capsys.readouterr().out
    assert out.index("table2: 2 runs") < out.index("table10: 1 runs") and "sweep" not in out
    assert submit.main(["--all", "--cluster", "slurm", "--site", "site.yaml"]) == 0
    assert sum(len(made.settings) for made in lab.ledgers()) == 2
    assert "1 shared with the other tables" in lab.capsys.readouterr().out
    assert status.main(["--table", "2", "10", "--site", "site.yaml", "--failed"]) == 0
    assert lab.capsys.readouterr().out == "nothing failed\n"


def test_no_word_of_status_is_bad_input(lab: Lab) -> None:
    (lab.folder / "site.yaml").write_text("partitions: x")
    assert lab.status(code=2).count("\n") == 1
