"""Runs on a set that is not built in: every configuration, both phases, resuming, and what is refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

import main
from seval.config import load
from seval.errors import Interrupted
from seval.run import Run
from tests.own_sets import write_own
from tests.settings import ROOT, result

QUICK = [
    "SOLVER.MAX_ITER",
    4,
    "SOLVER.IMS_PER_BATCH",
    4,
    "PERIODS.EVAL",
    2,
    "PERIODS.CHECKPOINT",
    2,
    "PERIODS.QUALITY",
    2,
]
QUICK += ["MODEL.DEPTH", 10, "MODEL.WIDTH", 1, "RUNTIME.PROGRESS", "off", "RUNTIME.TENSORBOARD", False]
QUICK += ["DATASET.PADDING", 2, "DATASET.CUTOUT", 8, "DATASET.DECODED_SIZE", 16, "RUNTIME.WORKERS", 0]
FILES = sorted((ROOT / "configs" / "own").glob("[!d]*.yaml"))


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sets")
    write_own(folder), write_own(folder, "photos", encoded=True), write_own(folder, "labeled", unlabeled=0)
    return folder


def settings(root: Path, runs: Path, name: str = "birds", *more: object) -> list:
    return ["DATASET.NAME", name, "DATASET.ROOT", str(root), "OUTPUT_DIR", str(runs), *QUICK, *more]


def run_of(method: str, root: Path, runs: Path, name: str = "birds", *more: object) -> Run:
    return Run(load(ROOT / "configs" / "own" / f"{method}.yaml", settings(root, runs, name, *more)))


def command(method: str, *words: object) -> int:
    return main.main(["--config-file", str(ROOT / "configs" / "own" / f"{method}.yaml"), *map(str, words)])


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_configuration_trains_as_the_set_is_given(file, root, tmp_path):
    run = run_of(file.stem, root, tmp_path)
    for each in run.chain():
        done = each.execute()
    splits = done["splits"]
    held_out = file.stem == "fixmatch_seval_estim"
    assert splits["labeled"]["class_counts"] == ([10, 5, 3] if held_out else [20, 10, 5])
    assert splits["unlabeled"]["unknown"] == 40 and splits["test"]["class_counts"] == [8, 8, 8]
    assert splits["held_out" if file.stem == "fixmatch_seval" else "valid"]["class_counts"] == [4, 2, 1]
    assert done["evaluations"] == 2 and 0 <= done["results"]["test"]["ema"]["none"]["top1"]["last"] <= 1


def test_both_phases_on_jpeg_files(root, tmp_path):
    for each in run_of("fixmatch_seval_load", root, tmp_path, "photos").chain():
        done = each.execute()
    assert "seval" in done["results"]["test"]["ema"] and done["splits"]["labeled"]["class_counts"] == [20, 10, 5]


def test_a_stopped_run_resumes_to_the_same_record(root, tmp_path):
    steps = iter([False, False, False, True])
    run = run_of("fixmatch_seval_estim", root, tmp_path / "stopped")
    with pytest.raises(Interrupted):
        run.execute(lambda: next(steps))
    resumed = run_of("fixmatch_seval_estim", root, tmp_path / "stopped").execute()
    assert result(resumed) == result(run_of("fixmatch_seval_estim", root, tmp_path / "whole").execute())


def test_a_tail_is_drawn_although_the_set_has_unlabeled_images(root, tmp_path):
    tail = [["DATASET.OWN.NUM_LABELED_HEAD", 3, "DATASET.OWN.NUM_UNLABELED_HEAD", n] for n in (2, 0)]
    drawn, beside = (run_of("fixmatch", root, tmp_path, "birds", *pairs).execute() for pairs in tail)
    assert drawn["splits"]["unlabeled"]["class_counts"] == [2, 2, 2] and "accuracy_kept" in drawn["pseudo_labels"]
    assert beside["splits"]["unlabeled"]["unknown"] == 40
    assert drawn["splits"]["labeled"] == beside["splits"]["labeled"] and drawn["data"] == beside["data"]


def test_a_dry_run_warns_of_a_small_hold_out(root, tmp_path, capsys):
    assert command("fixmatch_seval_estim", *settings(root, tmp_path), "--dry-run") == 0
    shown = capsys.readouterr()
    assert "held_out" in shown.out and "warning: 2 of 3 classes have fewer than 10 held-out images" in shown.err
    assert "pullover 2, trousers 5" in shown.err
    assert command("fixmatch", *settings(root, tmp_path), "--dry-run") == 0
    assert "warning" not in capsys.readouterr().err


def test_without_unlabeled_images_or_a_set_one_line_says_what_to_do(root, tmp_path, capsys):
    for dry in (["--dry-run"], []):
        assert command("fixmatch", *settings(root, tmp_path, "labeled"), *dry) == 2
        error = capsys.readouterr().err
        assert "fixmatch trains on unlabeled images, but labeled gives none; train a supervised method" in error
        assert error.count("\n") == 1
    assert run_of("supervised", root, tmp_path, "labeled").execute()["evaluations"] == 2
    assert command("fixmatch", "DATASET.ROOT", root, "OUTPUT_DIR", tmp_path) == 2
    error = capsys.readouterr().err
    assert "no file" in error and "own.h5" in error and "holds birds, labeled, photos;" in error
    assert command("fixmatch", "DATASET.NAME", "bird", "DATASET.ROOT", root, "--dry-run") == 2
    assert "did you mean birds?" in capsys.readouterr().err
