"""The demo as its user runs it, at a size of a minute: killed, called again, finished, called once more."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.settings import ROOT, SMALL


def table(folder: Path) -> Path:
    """The demo table with the settings of the tests, in a folder of its own."""
    content = yaml.safe_load((ROOT / "paper_tables/demo.yaml").read_text())
    content["set"] = [*SMALL, "SOLVER.MAX_ITER", 30]
    content["seeds"] = [0, 1]
    folder.mkdir()
    (folder / "small.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return folder / "small.yaml"


def command(script: str, table: Path, *more: str) -> list[str]:
    runs = str(table.parent / "runs")
    here = ["--cluster", "local"] if script == "submit" else []  # a machine may have a SLURM of its own
    return [sys.executable, f"repro/{script}.py", "--table", str(table), "--output-dir", runs, *here, *more]


def call(script: str, table: Path, *more: str) -> str:
    done = subprocess.run(command(script, table, *more), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def aggregated(path: Path) -> str:
    call("aggregate", path, "--out", str(path.parent), "--strict")
    return path.with_suffix(".csv").read_text()


@pytest.mark.slow
def test_a_killed_demo_goes_on_and_ends_with_the_same_table(tmp_path):
    whole, killed = table(tmp_path / "whole"), table(tmp_path / "killed")
    call("submit", whole)
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    first = subprocess.Popen(command("submit", killed), cwd=ROOT, start_new_session=True, **quiet)
    runs = killed.parent / "runs"
    while not list(runs.glob("*/record.json")) or len(list(runs.glob("*/metrics.jsonl"))) < 4:
        assert first.poll() is None
        time.sleep(0.05)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    done = {path: path.stat().st_mtime_ns for path in runs.glob("*/record.json")}
    assert 0 < len(done) < 10, "the kill must fall into the middle"
    call("submit", killed)
    assert {path: path.stat().st_mtime_ns for path in done} == done, "a finished run was done again"
    assert aggregated(killed) == aggregated(whole)
    assert "nothing to do" in call("submit", killed)
