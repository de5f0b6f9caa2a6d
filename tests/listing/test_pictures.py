"""The curves of runs in one picture."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from repro.listing.found import look
from repro.listing.pictures import curve_of, labels
from repro.tables.reading import Reading
from seval.record import read_lines
from tests.listing.conftest import evaluations, started

A, B, C = "aaaaaaaaaa", "bbbbbbbbbb", "cccccccccc"
STARTS = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}


@pytest.fixture
def drawn(write, tmp_path):
    pytest.importorskip("matplotlib")
    evaluations(write(A), 0.1, 0.2, 0.4)
    evaluations(write(B, SOLVER_BASE_LR=0.1), 0.3, 0.5)
    started(tmp_path / "runs" / C)


@pytest.mark.parametrize("ending", STARTS)
def test_a_picture_of_several_runs(drawn, call, ending):
    code, out, err = call("curves", "a", "b", "--out", f"x{ending}")
    content = Path(f"x{ending}").read_bytes()
    assert (code, err, out) == (0, "", f"2 runs: x{ending}\n") and content.startswith(STARTS[ending])
    if ending == ".svg":
        assert call("curves", "a", "b", "--out", "y.svg")[0] == 0 and Path("y.svg").read_bytes() == content
    assert sorted(path.name for path in Path().iterdir() if path.suffix == ending)[0].startswith("x")


def test_trained_runs_are_drawn(trained, call, tmp_path):
    pytest.importorskip("matplotlib")
    folder, ids = trained
    assert call("--output-dir", folder, "curves", *ids.values(), "--out", tmp_path / "all.svg")[0] == 0
    lines = read_lines(folder / ids["fixmatch"] / "metrics.jsonl")
    curve = curve_of(lines, Reading(), "x")
    assert curve.steps == [3, 6, 9, 12]
    assert curve.accuracy == [100 * line["test"]["ema"]["none"]["top1"] for line in lines]
    assert curve.losses == [sum(line["loss"].values()) for line in lines]


def test_odd_lines_are_left_out():
    good = {"step": 3, "loss": {"a": 1.0}, "test": {"ema": {"none": {"top1": 0.5}}}}
    lines = [good, good | {"test": 3}, good | {"step": None}, good | {"loss": [1]}, good | {"loss": {"a": "x"}}, {}]
    curve = curve_of(lines, Reading(), "x")
    assert (curve.steps, curve.accuracy) == ([3, 3, 3], [50.0] * 3)
    assert curve.losses[0] == 1.0 and all(map(math.isnan, curve.losses[1:]))


def test_labels_tell_the_runs_apart(drawn, tmp_path, write):
    write("dddddddddd")
    folders = [tmp_path / "runs" / id for id in (A, B, "dddddddddd")]
    name = "fixmatch · tiny · seed 0"
    found = labels([look(folder, Reading()) for folder in folders])
    assert found == [f"{name} BASE_LR=0.03 (aaaaaaaaaa)", f"{name} BASE_LR=0.1", f"{name} BASE_LR=0.03 (dddddddddd)"]


def test_a_run_without_evaluations_is_named(drawn, call):
    code, out, err = call("curves", "a", "c")
    assert code == 0 and "cccccccccc: no evaluations with test/ema/none yet" in out and Path("curves.png").exists()
    code, out, err = call("curves", "c", "--out", "none.png")
    assert code == 2 and "nothing to draw" in err and not Path("none.png").exists()
    code, out, err = call("curves", "a", "--offset", "seval", "--out", "none.png")
    assert code == 2 and "no evaluations with test/ema/seval" in err


def test_a_damaged_line_ends_a_curve_and_is_named(drawn, call):
    path = Path("runs", A, "metrics.jsonl")
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(lines[0] + lines[1].replace("0.2", "0.9") + lines[2])
    code, out, err = call("curves", "a", "b")
    assert code == 0 and "aaaaaaaaaa: line 2 of runs/aaaaaaaaaa/metrics.jsonl is damaged; the curve ends there" in out


@pytest.mark.parametrize(
    ("out", "said"), [("x.jpeg", "must end in"), ("x", "must end in"), ("gone/x.png", "cannot write")]
)
def test_a_file_that_cannot_be_drawn_is_one_line(drawn, call, out, said):
    code, _, err = call("curves", "a", "--out", out)
    assert code == 2 and said in err and err.count("\n") == 1


def test_names_are_no_formulas(write, call):
    pytest.importorskip("matplotlib")
    evaluations(write(A, method="$\\frac{$ _x"), 0.1, 0.2)
    assert call("curves", "a", "--out", "x.svg")[0] == 0
