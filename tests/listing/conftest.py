"""Folders of runs: a few that were trained, and as many as it takes that are written by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from repro import runs
from seval.files import sealed
from seval.keys import STANDARD
from seval.run import Run
from tests.settings import small

OFFSETS = ("none", "logit_adjusted")
METRICS = ("top1", "balanced_accuracy", "geometric_mean", "many", "medium", "few")
PROTOCOLS = ("last", "median20", "mean20", "best_on_valid", "best_on_test")


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """Three methods, of which the last depends on another run; not to be changed. (folder, ids by name)"""
    folder = tmp_path_factory.mktemp("trained") / "runs"
    ids = {}
    for method in ("supervised", "fixmatch", "fixmatch_seval_load"):
        chain = Run(small(method, folder)).chain()
        for run in chain:
            run.execute()
        ids |= {method: chain[-1].id} | ({f"{method}, before": chain[0].id} if len(chain) > 1 else {})
    return folder, ids


Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes the record of a made-up run in tmp_path/runs; the working directory is tmp_path."""
    monkeypatch.chdir(tmp_path)

    def written(id: str, top1: float = 0.5, method: str | None = "fixmatch", **given: object) -> Path:
        """`given` are settings, with _ for dots, and parts of the record in lower case."""
        names = {key.replace(".", "_"): key for key in STANDARD}
        settings = {names[key]: value for key, value in given.items() if key in names}
        parts = {key: value for key, value in given.items() if key not in names}
        config = {key: value for key, value in STANDARD.items() if not key.startswith(("OUTPUT", "RUNTIME", "GPU"))}
        config |= {"DATASET.NAME": "tiny"} | settings
        values = {metric: dict.fromkeys(PROTOCOLS, top1) for metric in METRICS}
        results = {split: {net: {each: values for each in OFFSETS} for net in ("ema", "raw")} for split in ("test",)}
        record = {
            "id": id,
            "config": config,
            "results": results,
            "per_class": {each: {"recall": [1.0, top1, None], "precision": [1.0, 0.5, None]} for each in OFFSETS},
            "splits": {"labeled": {"class_counts": [100, 10, 1], "unknown": 0, "sha256": "ab" * 32}},
            "prerequisites": [],
            "evaluations": 20,
            "steps": config["SOLVER.MAX_ITER"],
            "provenance": {"commit": "0123456789abcdef", "dirty": False, "device": "cpu", "code": "fedcba9876543210"},
            "seconds": 61.0,
            **({"method": method} if method else {}),
            **parts,
        }
        folder = tmp_path / "runs" / id
        folder.mkdir(parents=True)
        (folder / "record.json").write_text(json.dumps(sealed(record)), encoding="utf-8")
        return folder

    return written


def started(folder: Path, **more: object) -> None:
    """The file that a run writes when it starts."""
    folder.mkdir(parents=True, exist_ok=True)
    value = {
        "id": folder.name,
        "method": "fixmatch",
        "dataset": "tiny",
        "seed": 1,
        "delta": {"DATASET.NAME": "tiny", "SEED": 1},
        "needs": None,
        "began": "2026-11-26T04:40:00+00:00",
        "code": "fedcba9876543210",
        "steps": 1200,
    }
    (folder / "run.json").write_text(json.dumps(sealed(value | more)), encoding="utf-8")


def evaluations(folder: Path, *values: float) -> None:
    """metrics.jsonl, with an evaluation after every 40 steps."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "metrics.jsonl").open("w", encoding="utf-8") as file:
        for number, value in enumerate(values):
            measured = {"none": dict.fromkeys(METRICS, value)}
            line = {
                "run": folder.name,
                "step": 40 * (number + 1),
                "progress": 0.1,
                "loss": {"a": 2.0, "b": 1 / (number + 1)},
            }
            file.write(json.dumps(sealed({**line, "test": {"ema": measured}})) + "\n")


@pytest.fixture
def call(capsys: pytest.CaptureFixture) -> Callable[..., tuple[int, str, str]]:
    """Calls repro/runs.py; returns the exit code and what it says."""

    def called(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = runs.main([str(word) for word in words])
        return (code, *capsys.readouterr())

    return called
