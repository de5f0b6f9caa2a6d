"""The list: a line for each run, filters, and lines about what is damaged."""

from __future__ import annotations

import csv
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

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


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ([], "abc"),
        (["method=fixmatch"], "ab"),
        (["method=FixMatch", "SEED=1"], "b"),
        (["seed=1"], "bc"),
        (["SEED=0", "SEED=1"], "abc"),
        (["SEED!=1"], "a"),
        (["state=done"], "abc"),
        (["state=running"], ""),
        (["SOLVER.BASE_LR=0.1"], "c"),
        (["base_lr=1e-1"], "c"),
        (["NUM_LABELED_HEAD=500"], "b"),
        (["DATASET.TINY.NUM_LABELED_HEAD=500"], "b"),
        (["DATASET.CIFAR10.NUM_LABELED_HEAD=1500"], ""),
        (["dataset=tiny"], "abc"),
        (["DATASET.NAME=cifar10"], ""),
        (["POLICY=threshold(0.95)|one_hot"], "a"),
        (["HEADS.LINEAR.POLICY=thresh*"], "a"),
        (["method=fix*", "id=b"], "b"),
        (["code=0123", "finished=2026-11"], "c"),
        (["job=41"], "c"),
        (["HEADS.LINEAR.POLICY="], "bc"),
    ],
)
def test_filters(write, call, words, found):
    write(A, HEADS_LINEAR_POLICY="threshold(0.95) | one_hot")
    write(B, SEED=1, DATASET_TINY_NUM_LABELED_HEAD=500)
    about = {"commit": "0123", "finished": "2026-11-26T04:47:00+01:00", "job": "41"}
    write(C, SEED=1, method="mixmatch", SOLVER_BASE_LR=0.1, provenance=about)
    code, out, err = call(*words)
    assert (code, err, {id[0] for id in rows(out)}) == (0, "", set(found))
    if not found:
        assert f"none of the 3 runs in runs fits {' '.join(words)}" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["SEDE=1"], "did you mean SEED"),
        (["metod=x"], "did you mean method"),
        (["SOLVER.BASELR=1"], "SOLVER.BASE_LR"),
        (["zzzz=1"], "filters are id, method"),
        (["state=don"], "did you mean done?"),
        (["SEED=x"], "SEED is 'x' in the filter, but must be an int"),
        (["GPU_ID=0"], "GPU_ID cannot change a result"),
        (["=1"], "is no filter"),
        (["lst"], "did you mean list?"),
        (["3f9a"], "write show before its id"),
        (["csv", "3f9a"], "is no filter"),
        (["--out", "x.csv"], "--out is for curves and csv, not for list"),
        (["show", "a", "--yes"], "--yes is for rm, not for show"),
        (["show"], "show takes at least one id, not 0"),
        (["diff", "a"], "diff takes two ids, not 1"),
        (["--output-dir", "rnus"], "there is no folder rnus"),
    ],
)
def test_mistakes_are_one_line(write, call, words, said):
    write(A)
    code, out, err = call(*words)
    assert (code, out) == (2, "") and said in err and err.startswith("error: ") and err.count("\n") == 1


def test_no_runs_is_no_error(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = call()
    assert (
        (code, err) == (0, "")
        and out.startswith("no runs in runs yet")
        and "python repro/submit.py --table demo" in out
    )
    assert call("show", "a")[0] == 2


DAMAGE = {
    "empty": b"",
    "torn": b'{"id": "aaaaaaaaaa", "resul',
    "no JSON": b"\xff\xfe",
    "a list": b"[]",
    "deep": b"[" * 100_000,
    "changed": b'{"id": "aaaaaaaaaa", "results": {}, "sha256": "00"}',
    "of another": b'{"id": "bbbbbbbbbb", "results": {}}',
    "of a number": b'{"id": 1, "results": {}}',
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_record_is_said_in_its_line(write, call, name):
    started(write(A))
    write(B, SEED=2)
    (Path("runs") / A / "record.json").write_bytes(DAMAGE[name])
    code, out, err = call()
    assert (code, err) == (2, "") and "damaged: record.json: " in rows(out)[A] and "seed 1" in rows(out)[A]
    assert "done" in rows(out)[B] and "Traceback" not in out
    code, out, err = call("show", "a")
    assert (code, err) == (2, "") and "damaged" in out and "record.json: " in out
    code, out, err = call("diff", "a", "b")
    assert (code, err) == (2, "") and "SEED" in out
    assert call("csv")[1].count("\n") == 3 and call("SEED=2")[0] == 0


@pytest.mark.parametrize(
    "part",
    [
        {"results": {"test": 3}},
        {"results": {"test": {"ema": {"none": {"top1": {"median20": "high"}}}}}},
        {"config": 3, "delta": [], "steps": "many", "evaluations": -1},
        {"config": {"SEED": [1, {"a": 2}], "DATASET.NAME": None, "ODD": "x\x1b[31m\n", "ALGORITHM.NAME": 4}},
        {"provenance": [1], "seconds": "x", "prerequisites": {"a": 1}, "method": 5},
        {"provenance": {"commit": 1, "code": None, "finished": [], "packages": [], "dirty": "x", "device": {"a": 1}}},
        {"per_class": {"none": {"recall": "all"}}, "splits": [1]},
        {"per_class": {"none": {"recall": [1, "x"]}}, "splits": {"labeled": {"class_counts": [{}]}}},
        {"seconds": 10**400, "steps": 10**400, "evaluations": 10**400, "per_class": {"none": {"recall": [10**400]}}},
        {"results": {"test": {"ema": {"none": {"top1": {"median20": 10**400, "last": 10**400}}}}}},
        {"splits": {"labeled": {"class_counts": [10**4000]}}, "config": {"SEED": 10**4000}},
        {"splits": {"labeled": 3}, "prerequisites": [1, None, "x\x1b"], "method": "\x1b[2J" * 100},
    ],
)
def test_a_record_of_odd_parts_is_never_a_traceback(write, call, part):
    write(A, **part)
    write(B)
    for words in ([], ["csv"], ["show", "a"], ["show", "b"], ["diff", "a", "b"], ["diff", "b", "a"], ["SEED=1"]):
        code, out, err = call(*words)
        assert code in (0, 2) and not err and out and "\x1b" not in out


@pytest.mark.parametrize("name", ["record.json", "run.json", "config.yaml", "metrics.jsonl", "failure.json", "claim.1"])
@pytest.mark.parametrize("kind", ["folder", "pipe", "garbage", "loop"])
def test_a_file_that_cannot_be_read_is_never_a_traceback(write, call, name, kind, tmp_path):
    write(B)
    folder = tmp_path / "runs" / A
    folder.mkdir()
    path = folder / name
    {
        "folder": path.mkdir,
        "pipe": lambda: os.mkfifo(path),
        "garbage": lambda: path.write_bytes(b"\x00\xff{[: \x1b[2J\n" * 9),
        "loop": lambda: path.symlink_to(path),
    }[kind]()
    for words in ([], ["show", "a"], ["csv"], ["diff", "a", "b"]):
        code, out, err = call(*words)
        assert code in (0, 2) and not err and "\x1b" not in out
    if name == "record.json":
        word = "damaged" if kind == "garbage" else "unreadable"  # only what was read is called damaged
        assert f"{word}: record.json: " in rows(call()[1])[A] and rows(call(f"state={word}")[1]).keys() == {A}
    if name in ("record.json", "run.json", "config.yaml"):
        assert f"{name}: " in rows(call()[1])[A]


def test_a_file_with_the_name_of_a_run_is_said_in_its_line(write, call, tmp_path):
    write(B)
    (tmp_path / "runs" / A).write_text("")
    code, out, err = call()
    assert (code, err) == (2, "") and "unreadable: record.json: Not a directory" in rows(out)[A]


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
