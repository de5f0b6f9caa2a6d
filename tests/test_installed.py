"""The wheel in an environment of its own: the command `seval` in an empty folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from seval.config import load
from seval.provenance import code
from seval.record import read_record
from seval.run import Run
from tests.settings import ROOT

pytest.importorskip("setuptools", "77")
pytestmark = pytest.mark.slow
TINY = "configs/tiny/fixmatch.yaml"
FEW = ["SOLVER.MAX_ITER", "4", "PERIODS.EVAL", "2", "PERIODS.CHECKPOINT", "4", "DATASET.NUM_VALID", "50"]
FEW += ["DATASET.NUM_TEST", "10", "SOLVER.IMS_PER_BATCH", "8", "RUNTIME.PROGRESS", "off"]


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> Path:
    """The Python of an environment with the wheel, which finds all other packages in the one of this test."""
    folder = tmp_path_factory.mktemp("installed")
    source = folder / "source"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".git", ".venv", "runs", "build", "__pycache__"))
    build = "from setuptools import build_meta; print(build_meta.build_wheel('../wheel'))"
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True)
    (wheel,) = (folder / "wheel").glob("*.whl")
    shutil.rmtree(source)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    python = folder / "venv" / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", "-q", wheel]
    subprocess.run(install, check=True, capture_output=True)
    (site,) = (folder / "venv").glob("lib/python*/site-packages")
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


@pytest.fixture
def call(python, tmp_path):
    """Call the command in an empty folder; returns what it printed."""

    def seval(*words: str, code: int = 0) -> str:
        clean = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "SEVAL_DATA")}
        clean["PATH"] = f"{python.parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(["seval", *words], cwd=tmp_path, env=clean, capture_output=True, text=True)
        assert done.returncode == code and "Traceback" not in done.stderr, done.stderr
        return done.stdout + done.stderr

    return seval


def test_a_run_is_trained_and_reported_in_an_empty_folder(call, tmp_path):
    wanted = Run(load(ROOT / TINY, FEW))
    assert f"run {wanted.id} done" in call("train", "--config-file", TINY, *FEW)
    done = read_record(tmp_path / "runs" / wanted.id / "record.json")
    assert done and done["provenance"]["code"] == code() and done["provenance"]["commit"] is None
    assert wanted.id in call("runs") and "done before" in call("train", TINY, *FEW[:-2])


def test_tables_are_read_from_the_package_and_written_here(call, tmp_path):
    assert "seval submit --table demo" in call("aggregate", "--table", "demo")
    assert {file.name for file in (tmp_path / "paper_tables").iterdir()} == {"demo.md", "demo.csv", "demo.tex"}
    assert "15 runs" in call("submit", "demo", "--dry-run", "--cluster", "local")
    assert "seval aggregate" in (tmp_path / "paper_tables" / "demo.md").read_text()
    for each in ("--table=2", "--table=11"):
        call("aggregate", each, "--out", "pages")


def test_the_other_commands(call, tmp_path):
    assert "fixmatch" in call("methods") and "is valid" in call("prepare", "tiny", "--verify")
    assert "usage: seval submit" in (said := call("submit", "--help")) and ".py" not in said
    assert "seval train --config-file configs/tiny/" in call("train", "configs/tiny/fixmatch_seval_load.yaml", code=2)
    assert not list(tmp_path.iterdir())


def test_runs_of_a_table_are_done_by_processes_of_this_package(call, tmp_path):
    (tmp_path / "small.yaml").write_text(
        f"folder: tiny\nseeds: [0]\nprotocol: last\nset: [{', '.join(FEW[:-2])}]\ncolumns: {{tiny: {{}}}}\n"
        "rows: {FixMatch: {config: fixmatch}}\n"
    )
    call("submit", "small.yaml", "--cluster", "local", "--jobs", "1")
    assert "| FixMatch" in call("aggregate", "small.yaml", "--strict")
