"""From YAML to runs: levels, base files, mistakes, and the shipped tables."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from repro import aggregate, submit
from repro.tables import table as tables
from seval.config import load
from seval.errors import ConfigError
from seval.run import Run
from tests.tables.conftest import TABLE, cells_of


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
        ("config: plain}", "config: plane}", "no configuration file .*plane.yaml; did you mean plain.yaml"),
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
        ["SEED", "1"],
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


def write_files(folder: Path, **files: str) -> None:
    for name, text in files.items():
        path = folder / "paper_tables" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_a_file_is_laid_over_its_base_files(folder: Path) -> None:
    (folder / "paper_tables/base").mkdir()
    write_files(
        folder,
        **{
            "base/deep": "{folder: small, config: replay, seeds: [7], set: [MEMO, a], assumed: first}",
            "base/grid": "{_BASE_: deep.yaml, config: plain, columns: {c: {metric: few}}, rows: {r: {}, s: {}}}",
            "top": "{_BASE_: [base/grid.yaml], set: [SOLVER.BASE_LR, 0.5], assumed: [second],"
            " rows: {s: {cells: {c: {seeds: [8]}}}}, reported: {r: {c: 5}}}",
        },
    )
    cells, table = cells_of("top"), tables.find_table("top")
    assert list(cells) == [("r", "c"), ("s", "c")] and cells["r", "c"].reported == (5, None)
    assert list(cells["r", "c"].runs) == [7] and list(cells["s", "c"].runs) == [8]
    cfg = cells["r", "c"].runs[7].cfg
    assert (cfg.MEMO, cfg.SOLVER.BASE_LR, cfg.SOLVER.MAX_ITER) == ("a", 0.5, 500)
    assert cells["s", "c"].reading.metric == "few" and table.assumed() == ["first", "second"]


@pytest.mark.parametrize(
    "base, message",
    [
        ("{_BASE_: top.yaml}", "top.yaml includes itself through _BASE_: .*top.yaml -> .*base.yaml"),
        ("{_BASE_: gone.yaml}", "cannot read .*gone.yaml: .*No such file"),
        ("{_BASE_: {a: b}}", "_BASE_ in .*base.yaml must be a file or a list of files, but is {'a': 'b'}"),
        ("{_BASE_: [1]}", "_BASE_ in .*base.yaml must be a file or a list of files"),
        ("{seds: [1]}", "unknown key in .*base.yaml: 'seds'; did you mean 'seeds'"),
        ("{rows: {r: {ofset: none}}}", "unknown key in row 'r' of .*base.yaml: 'ofset'; did you mean 'offset'"),
        ("{rows: {r: {cells: {d: {}}}}}", "unknown column in the cells of row 'r' of .*base.yaml: 'd'"),
        ("{columns: 3}", "columns in .*base.yaml must be a mapping"),
    ],
)
def test_a_mistake_in_a_base_file_is_named_with_the_file(folder: Path, base: str, message: str) -> None:
    write_files(folder, base=base, top="{_BASE_: base.yaml, folder: small, config: plain, columns: {c: }, rows: {r: }}")
    with pytest.raises(ConfigError, match=message):
        tables.find_table("top")


def test_a_base_file_alone_is_no_table() -> None:
    with pytest.raises(ConfigError, match="must have rows and columns"):
        tables.find_table("base/seeds")
