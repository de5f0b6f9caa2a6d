"""What runs have left on disk, as series over steps and values by class."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from repro.pages import history
from repro.pages.history import POINTS, Group, _chosen, _published_name, groups
from repro.tables.reading import Records
from repro.tables.table import CONFIGS, Table
from seval.config import load
from seval.files import sealed
from seval.run import Run
from tests.settings import small


def write_lines(run: Run, values: dict[int, float], **more: object) -> None:
    run.folder.mkdir(parents=True, exist_ok=True)
    lines = [sealed({"run": run.id, "step": step, "test": value, **more}) for step, value in values.items()]
    (run.folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def group_of(folder: Path, count: int) -> Group:
    return Group({seed: Run(small("fixmatch", folder, "SEED", seed)) for seed in range(count)}, Records(), "column")


def test_series_are_means_over_the_seeds_that_have_the_step(tmp_path: Path) -> None:
    group = group_of(tmp_path, 3)
    write_lines(group.runs[0], {3: 1.0, 6: 2.0, 9: 3.0})
    write_lines(group.runs[1], {3: 2.0, 6: 4.0})
    found = group.series(lambda line: line["test"])
    assert found is not None and found.steps.tolist() == [3, 6, 9]
    assert found.mean.tolist() == [1.5, 3.0, 3.0] and found.std.tolist() == [0.5, 1.0, 0.0]
    assert list(group.lines) == [0, 1] and group.done == {}
    assert group.series(lambda line: line["no such"]["key"]) is None
    assert group.series(lambda line: None) is None


def test_a_damaged_line_ends_the_curve(tmp_path: Path) -> None:
    group = group_of(tmp_path, 1)
    write_lines(group.runs[0], {3: 1.0, 6: 2.0, 9: 3.0})
    path = group.runs[0].folder / "metrics.jsonl"
    path.write_text(path.read_text().replace('"step": 6', '"step": 7'), encoding="utf-8")
    found = group.series(lambda line: line["test"])
    assert found is not None and found.steps.tolist() == [3]


@pytest.mark.parametrize("evaluations, quality", [(5, 1), (99, 7), (500, 20), (500, 1), (5000, 20), (1501, 10)])
def test_long_histories_are_thinned_alike_for_all_seeds(tmp_path: Path, evaluations: int, quality: int) -> None:
    words = ["PERIODS.EVAL", 10, "SOLVER.MAX_ITER", 10 * evaluations, "PERIODS.QUALITY", 10 * quality]
    chosen = _chosen(small("fixmatch", tmp_path, *words))
    texts = [b'"quality": {"' if (number + 1) % quality == 0 else b"{}" for number in range(evaluations)]
    kept = [number for number, text in enumerate(texts) if chosen(number, text)]
    assert kept[-1] == evaluations - 1 and len(kept) <= 2 * (1.5 * POINTS + 1)
    assert len(kept) == evaluations if evaluations < 100 else len(kept) > 0.6 * POINTS
    measured = [number for number in kept if texts[number] != b"{}"]
    assert len(measured) >= min(evaluations // quality, 0.6 * POINTS)
    again = _chosen(small("fixmatch", tmp_path, *words, "SEED", 1))
    assert [number for number in range(len(kept) // 2) if again(number, texts[number])] == [
        number for number in kept if number < len(kept) // 2
    ], "a run that is not done has the same steps"


def test_means_over_records_leave_out_what_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    group = group_of(tmp_path, 3)
    records = {0: {"a": [1.0, None, None]}, 1: {"a": [3.0, 5.0, None]}, 2: {"a": 3}}
    monkeypatch.setattr(Group, "done", records)
    found = group.average(lambda record: record["a"])
    assert found is not None and found[:2].tolist() == [2.0, 5.0] and np.isnan(found[2])
    assert group.average(lambda record: record["b"]) is None
    assert group.average(lambda record: [None, None]) is None


def test_rows_that_read_the_same_runs_are_one_group(real: Table) -> None:
    cells = list(real.cells(["OUTPUT_DIR", str(real.path.parent / "runs")]))
    found = groups((name, cell) for name in ("one", "two") for cell in cells)
    assert [group.rows for group in found.values()] == [["Supervised"], ["FixMatch", "FixMatch + LA"], ["SEVAL"]]
    assert all(group.tables == ["one", "two"] for group in found.values())
    supervised, _, seval = found.values()
    assert {seed: len(lines) for seed, lines in supervised.lines.items()} == {0: 4, 1: 8} and list(supervised.done) == [
        1
    ]
    assert seval.curriculum is not None and seval.curriculum[0] == 0
    assert seval.curriculum[1]["pi_smoothed"].shape == (8, 10) == seval.curriculum[1]["tau_rare"].shape
    assert supervised.curriculum is None and seval.published() is None


def test_damaged_artifacts_are_named_and_nothing_else_is_lost(real: Table, tmp_path: Path) -> None:
    runs = next(cell.runs for cell in real.cells(["OUTPUT_DIR", str(real.path.parent / "runs")]) if cell.row == "SEVAL")
    group = Group(runs, Records(), "")
    path = runs[0].folder / "artifacts.h5"
    content = path.read_bytes()
    try:
        path.write_bytes(content[:-1])
        assert group.curriculum is not None and group.curriculum[0] == 1, "the next seed is shown"
        assert list(group.records.damaged) == [runs[0].id] and str(path) in group.records.damaged[runs[0].id]
        assert len(group.done) == 2
    finally:
        path.write_bytes(content)


def test_every_published_curriculum_is_found_by_a_setting_of_table_2() -> None:
    from tests.tables.paper import cells_of

    names = {_published_name(run.cfg) for cell in cells_of("2").values() for run in cell.runs.values()}
    names |= {_published_name(load(CONFIGS / "semi_aves" / "fixmatch.yaml", []))}
    there = {path.name.removesuffix("_estim_pi.npy") for path in history.CURRICULA.glob("*_pi.npy")}
    assert there and there <= names
    assert _published_name(load(CONFIGS / "tiny" / "fixmatch.yaml", [])) is None
