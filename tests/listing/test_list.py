"""The list: a line for each run, filters, and lines about what is damaged."""

from __future__ import annotations

import csv
import io
import os
import subprocess
import sys
from pathlib import Path

from seval.claim import claim
from tests.listing.conftest import evaluations, started
from tests.settings import ROOT

A, B, C, D = "aaaaaaaaaa", "bbbbbbbbbb", "cccccccccc", "dddddddddd"
HEAVY = ("torch", "numpy", "matplotlib", "scipy", "h5py", "pandas")


def rows(text: str) -> dict[str, str]:
    """The lines of runs, by id."""
    return {line[:10]: line for line in text.splitlines() if line[:10].isalnum() and line[10:12] == "  "}


def test_a_list_imports_nothing_that_is_slow(write, tmp_path):
    write(A)
    write(B, SEED=1)
    code = (
        "import sys; import repro.runs; before = [each for each in HEAVY if each in sys.modules]\n"
        "words = ([], ['SEED=1'], ['csv'], ['show', 'a'], ['diff', 'a', 'b'])\n"
        "codes = [repro.runs.main([*each]) for each in words]\n"
        "print(codes, before, [each for each in HEAVY if each in sys.modules])"
    )
    code = f"HEAVY = {HEAVY}\n{code}"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        encoding="utf-8",
    )
    assert done.stdout.splitlines()[-1] == "[0, 0, 0, 0, 0] [] []", done.stdout + done.stderr


def test_trained_runs_are_listed_with_their_numbers(trained, call):
    folder, ids = trained
    code, out, err = call("--output-dir", folder)
    assert (code, err) == (0, "") and rows(out).keys() == set(ids.values())
    assert "4 runs: 4 done" in out and all("· tiny · seed 0" in line for line in rows(out).values())
    line = rows(out)[ids["supervised"]]
    assert "supervised · tiny" in line and "  12  done  " in line
    assert "in 4 runs there are fewer, and all count" in out


def test_the_numbers_are_those_of_the_record(write, call):
    write(A, 0.6789)
    for more in ([], ["--network", "raw"], ["--protocol", "last"], ["--offset", "logit_adjusted"]):
        assert rows(call(*more)[1])[A].count("67.89") == 3
    assert "67.89" not in call("--split", "valid")[1] and "67.89" not in call("--offset", "seval")[1]
    assert call("--offset", "sevall")[0] == 2


def test_states_are_told_from_the_files(write, call, tmp_path):
    runs = tmp_path / "runs"
    write(A)
    for id in (B, C, D, "e" * 10, "f" * 10):
        started(runs / id)
    (runs / B / "checkpoint.pt").touch()
    evaluations(runs / B, 0.1, 0.2)
    (runs / C / "failure.json").write_text('{"kind": "oom", "error": "CUDA out of memory \\u001b[2J"}')
    (runs / "f0f0f0f0f0").mkdir()
    with claim(runs / D):
        code, out, err = call()
    lines = rows(out)
    assert code == 0 and not err and "\x1b" not in out
    assert "  80/1200  resumable  " in lines[B] and "(20.00)" in lines[B] and "in brackets: the last evaluation" in out
    assert "oom: CUDA out of memory \\x1b[2J" in lines[C]
    assert "running" in lines[D] and "0/1200  new" in lines["e" * 10]
    assert " ?  " in lines["f0f0f0f0f0"]
    assert "7 runs: 1 done, 1 running" in out


def test_other_folders_are_no_runs(write, call, tmp_path):
    write(A)
    for name in ("slurm", "submitit", ".old", "aaaaaaaaa", "aaaaaaaaaa.bak", "AAAAAAAAAA", "gggggggggg"):
        (tmp_path / "runs" / name).mkdir()
    assert rows(call()[1]).keys() == {A}


def test_no_runs_is_no_error(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = call()
    assert (
        (code, err) == (0, "")
        and out.startswith("no runs in runs yet")
        and "python repro/submit.py --table demo" in out
    )
    assert call("show", "a")[0] == 2


def test_old_records_say_less(write, call):
    about = {"commit": "0123456789", "dirty": True, "device": "cpu"}
    write(A, method=None, HEADS_LINEAR_POLICY="threshold(0.95) | one_hot", ALGORITHM_NAME="fixmatch", provenance=about)
    write(B, method=None, provenance={})
    lines = rows(call()[1])
    assert "fixmatch (threshold(0.95)|one_hot) · tiny · seed 0" in lines[A] and lines[A].endswith("  0123456+")
    assert "supervised · tiny · seed 0" in lines[B]
    assert rows(call("method=fixmatch")[1]).keys() == {A}


def test_of_an_older_version_the_configuration_tells_what_has_begun(trained, call, tmp_path):
    folder, ids = trained
    target = tmp_path / "runs" / ids["fixmatch"]
    target.mkdir(parents=True)
    (target / "config.yaml").write_bytes((folder / ids["fixmatch"] / "config.yaml").read_bytes())
    line = rows(call("--output-dir", tmp_path / "runs")[1])[ids["fixmatch"]]
    assert "fixmatch · tiny · seed 0" in line and "0/12" in line
    copied, record = (
        call("--output-dir", each, "csv", f"id={ids['fixmatch']}")[1] for each in (tmp_path / "runs", folder)
    )
    assert copied.splitlines()[0] == record.splitlines()[0]


def test_the_spreadsheet_has_all_that_differs(write, call, tmp_path):
    write(A, 0.7, method="=cmd()", SOLVER_BASE_LR=0.1, SOLVER_MAX_ITER=1000)
    write(B, 0.25, SOLVER_BASE_LR=0.2, SOLVER_MAX_ITER=2000)
    found = {row["id"]: row for row in csv.DictReader(io.StringIO(call("csv")[1]))}
    assert found[A]["method"] == "'=cmd()" and found[A]["top1"] == "70.0" and found[B]["SOLVER.BASE_LR"] == "0.2"
    assert found[B]["SOLVER.MAX_ITER"] == "2000" and "SEED" not in found[A] and found[A]["folder"] == "runs/aaaaaaaaaa"
    code, out, _ = call("csv", "BASE_LR=0.1", "--out", "x.csv")
    assert (code, out) == (0, "1 run: x.csv\n") and len(Path("x.csv").read_text().splitlines()) == 2
    assert call("csv", "--out", "gone/x.csv")[0] == 2
