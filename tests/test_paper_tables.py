"""The tables of the paper: which runs they are made of, what they say is assumed, and that their numbers agree."""

from __future__ import annotations

import csv
import json
import re
import statistics
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from repro import aggregate
from repro.tables import page
from repro.tables import settings as hyperparameters
from repro.tables import table as tables
from repro.tables.reading import CASES, class_count
from repro.tables.table import Cell
from seval.config import delta, settings
from seval.data.splits import split
from seval.defaults import own_node
from seval.errors import ConfigError
from seval.policy.base import Facts
from seval.policy.language import build_policy
from seval.run import Run

RESULTS = [str(number) for number in range(2, 10)]
C10, C10_1500, C100, C100_50 = "CIFAR10-LT n1=500", "CIFAR10-LT n1=1500", "CIFAR100-LT n1=150", "CIFAR100-LT n1=50"
#: Rows, columns, and the sums of the means and deviations that the paper prints.
SHAPES = {
    "2": (14, 6, 5325.4, 80.85),
    "3": (6, 2, 692.1, 2.34),
    "4": (6, 6, 2789.5, 32.38),
    "5": (5, 3, 909.7, 19.39),
    "6": (6, 2, 798.8, 6.98),
    "7": (9, 1, 741.4, 3.42),
    "8": (6, 1, 184.0, 0),
    "9": (9, 2, 1191.9, 10.56),
}


@cache
def cells_of(name: str) -> dict[tuple[str, str], Cell]:
    return {(cell.row, cell.column): cell for cell in tables.find_table(name).cells(["OUTPUT_DIR", "nowhere"])}


@cache
def chains() -> dict[str, tuple[Run, ...]]:
    """Every run that a cell reads, by id, with what it stands on before it."""
    runs = {run.id: run for name in RESULTS for cell in cells_of(name).values() for run in cell.runs.values()}
    return {name: tuple(run.chain()) for name, run in runs.items()}


def ids(name: str, row: str, column: str) -> list[str]:
    return [run.id for run in cells_of(name)[row, column].runs.values()]


# ---- numbers of the paper


@pytest.mark.parametrize("name", SHAPES)
def test_every_cell_is_there_with_its_reported_number(name: str) -> None:
    table, (rows, columns, means, deviations) = tables.find_table(name), SHAPES[name]
    cells = cells_of(name)
    assert (len(table.rows), len(table.columns), len(cells)) == (rows, columns, rows * columns)
    assert all(list(cell.runs) == [79, 80, 81] and cell.reported for cell in cells.values())
    assert sum(cell.reported[0] for cell in cells.values()) == pytest.approx(means)
    assert sum(cell.reported[1] or 0 for cell in cells.values()) == pytest.approx(deviations)
    assert all((cell.reported[1] is None) == (name == "8") for cell in cells.values())


@pytest.mark.parametrize(
    ("name", "row", "column", "expected"),
    [
        ("2", "Supervised", C10, (47.3, 0.95)),
        ("2", "w/ SEVAL", "STL10-LT n1=450", (75.7, 0.36)),
        ("2", "w/ CReST+", C100, (57.1, 0.65)),
        ("2", "FixMatch", "STL10-LT n1=150", (47.6, 4.87)),
        ("3", "w/ DASO", "U=Uin+Uout", (56.6, 0.32)),
        ("4", "w/ SEVAL-PL", "gamma_u=1 n1=1500", (89.2, 0.02)),
        ("4", "w/ DARP", "gamma_u=1/100 n1=500", (70.1, 0.22)),
        ("5", "w/ DASO", "gamma_l=1 n1=4", (48.6, 2.81)),
        ("6", "w/ SEVAL-THA", C10, (77.0, 0.93)),
        ("7", "eta_tau=0.9995", C10, (82.9, 0.09)),
        ("8", "w/ SEVAL", "Small-ImageNet-127", (34.8, None)),
        ("9", "MixMatch w/ SEVAL", C10_1500, (81.8, 0.82)),
    ],
)
def test_reported_numbers_are_the_papers(name: str, row: str, column: str, expected: tuple) -> None:
    assert cells_of(name)[row, column].reported == expected


def test_what_two_tables_share_is_equal_in_numbers_and_runs() -> None:
    pairs = [
        (("6", row, column), ("2", row, column))
        for row in ("FixMatch", "w/ DARP", "w/ FlexMatch", "w/ SEVAL-PL")
        for column in (C10, C100)
    ]
    pairs += [(("7", row, C10), ("2", "w/ SEVAL", C10)) for row in tables.find_table("7").rows if "main" in row]
    assert len(pairs) == 8 + 3
    for one, other in pairs:
        assert ids(*one) == ids(*other)
        assert cells_of(one[0])[one[1:]].reported == cells_of(other[0])[other[1:]].reported
        assert cells_of(one[0])[one[1:]].reading == cells_of(other[0])[other[1:]].reading


# ---- runs


@pytest.mark.parametrize("name", ["2", "3", "4", "5", "8"])
def test_seval_is_seval_pl_read_with_the_learned_offset(name: str) -> None:
    for column in tables.find_table(name).columns:
        assert ids(name, "w/ SEVAL", column) == ids(name, "w/ SEVAL-PL", column)
        paths = [cells_of(name)[row, column].reading.offset for row in ("w/ SEVAL-PL", "w/ SEVAL")]
        assert paths == ["none", "seval"]


def test_an_id_stands_for_one_set_of_settings() -> None:
    found: dict[str, str] = {}
    for chain in chains().values():
        for run in chain:
            text = json.dumps(settings(run.cfg), sort_keys=True)
            assert found.setdefault(run.id, text) == text
    read = {"2": 13 * 6, "3": 5 * 2, "4": 5 * 6, "5": 4 * 3, "6": 2 * 2, "7": 6, "8": 5, "9": 9 * 2}  # no run twice
    assert len(chains()) == 3 * sum(read.values())
    chained = {"replays": 6 + 2 + 6 + 3 + 4 + 6 + 1 + 6, "DARP": 2 + 2 + 4, "CReST+": 4 * (6 + 2 + 6)}
    assert len(set(found.values())) == len(found) == len(chains()) + 3 * sum(chained.values())


def test_a_replay_stands_on_an_estimate_that_differs_in_the_held_out_labels_only() -> None:
    replays = [chain for chain in chains().values() if "seval" in chain[-1].cfg.HEADS.LINEAR.POLICY]
    assert replays and all(len(chain) == 2 for chain in replays)
    for estimate, replay in replays:
        expected = delta(replay.cfg) | {"DATASET.HELD_OUT": "labeled"}
        expected.pop("PREREQUISITE")
        assert delta(estimate.cfg) == expected
    assert len({estimate.id for estimate, _ in replays}) == len(replays)


@pytest.mark.parametrize(
    ("row", "rules"),
    [("w/ SEVAL-PLR", ["SevalRefine", "Threshold", "OneHot"]), ("w/ SEVAL-THA", ["SevalThreshold", "OneHot"])],
)
def test_half_of_seval_has_the_settings_of_the_whole(row: str, rules: list[str]) -> None:
    for column, classes in ((C10, 10), (C100, 100)):
        facts = Facts(classes, torch.ones(classes), 9, num_held_out=9)
        half, whole = (
            build_policy(cells_of("6")[name, column].runs[79].cfg.HEADS.LINEAR.POLICY, facts)
            for name in (row, "w/ SEVAL-PL")
        )
        assert [type(rule).__name__ for rule in half] == rules
        mine, (theirs,) = half[0], [rule for rule in whole if type(rule) is type(half[0])]
        assert mine.curriculum.decay == theirs.curriculum.decay and (mine.groups == theirs.groups).all()
        assert getattr(mine, "target", None) == getattr(theirs, "target", None)


@pytest.mark.parametrize("name", RESULTS)
def test_every_policy_can_be_built(name: str) -> None:
    classes = hyperparameters.CLASSES
    for cell in cells_of(name).values():
        cfg = cell.runs[79].cfg
        facts = Facts(
            classes[cfg.DATASET.NAME],
            torch.ones(classes[cfg.DATASET.NAME]),
            5,
            feature_dim=2,
            num_held_out=int(bool(cfg.PREREQUISITE)),
        )
        policies = [build_policy(head.POLICY, facts) for head in cfg.HEADS.values() if head.LABELED_LOSS]
        assert cell.reading.offset in ("none", *policies[-1].offsets())


def test_darp_estimates_only_where_the_ratios_differ_and_daso_trusts_less() -> None:
    for column in tables.find_table("4").columns:
        darp, daso = (cells_of("4")[f"w/ {row}", column].runs[79].cfg for row in ("DARP", "DASO"))
        equal = column.startswith("gamma=150")
        assert bool(darp.PREREQUISITE) != equal
        assert ("daso(flatness=1.5)" in daso.HEADS.LINEAR.POLICY) == equal


def test_every_run_finds_enough_images() -> None:
    """Sets of the real sizes, so that a head count or a hold-out that cannot be met shows here; one seed."""
    sizes = {"cifar10": (10, 5000), "cifar100": (100, 500), "stl10": (10, 500)}
    seen = {}
    for chain in chains().values():
        for run in chain:
            cfg = run.cfg
            if cfg.SEED == 79 and cfg.DATASET.NAME in sizes:
                of_data = {key: value for key, value in settings(cfg).items() if key.startswith("DATASET")}
                seen.setdefault(json.dumps(of_data), cfg)
    for cfg in seen.values():
        classes, each = sizes[cfg.DATASET.NAME]
        pool = np.ones(100, bool) if cfg.DATASET.NAME == "stl10" else None
        labels = np.repeat(np.arange(classes), each)
        found = split(labels, cfg, pool=pool)
        assert len(found.labeled) >= classes and len(np.unique(labels[found.labeled])) == classes
        assert (len(found.held_out) > 0) == (cfg.DATASET.HELD_OUT != "none")
        if own_node(cfg).NUM_LABELED_HEAD == 4 and len(found.held_out):  # just not rare: see the table
            assert np.bincount(labels[found.held_out]).reshape(2, 5).sum(1).tolist() == [10, 10]


# ---- what is assumed


def test_marks_and_reasons_agree_in_every_form() -> None:
    for name in [*RESULTS, "10", "11"]:
        table, cells = tables.find_table(name), list(cells_of(name).values())
        text, latex, lines = (form(table, cells) for form in (page.markdown, page.latex, page.comma_separated))
        given = re.findall(r"^\[\^(\d+)\]: (.+)$", text, re.MULTILINE)
        marks = re.findall(r"\[\^(\d+)\](?!:)", text)
        assert [number for number, _ in given] == [str(i + 1) for i in range(len(given))] == list(dict.fromkeys(marks))
        assert {n for group in re.findall(r"\^\{([\d,]+)\}", latex) for n in group.split(",")} == set(marks)
        assert latex.isascii() and latex.count("{") == latex.count("}")
        texts = " ".join(line["assumed"] for line in csv.DictReader(lines.splitlines()))
        assert all(reason in texts for _, reason in given)


def test_a_reason_stands_where_it_was_given(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text("""\
{folder: cifar10, config: fixmatch, assumed: of all, columns: {a: {assumed: "of a_b"}, b: {}},
 rows: {r: {assumed: [first, of all]}, s: {cells: {b: {assumed: first}}}}}""")
    assert aggregate.main(["--table", str(tmp_path / "small.yaml"), "--out", str(tmp_path)]) == 0
    page = (tmp_path / "small.md").read_text()
    rows = [[text.strip() for text in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("|")]
    assert rows[0] == ["Method[^1]", "a[^2]", "b"]
    assert rows[2:] == [["r[^3][^1]", "—", "—"], ["s", "—", "—[^3]"]]
    assert page.endswith("[^1]: of all\n[^2]: of a_b\n[^3]: first\n")
    latex = (tmp_path / "small.tex").read_text()
    assert "r$^{3,1}$" in latex and r"$^{2}$~of a\_b" in latex
    lines = list(csv.DictReader((tmp_path / "small.csv").read_text().splitlines()))
    assert [line["assumed"] for line in lines] == [
        "of all of a_b first",
        "of all first",
        "of all of a_b",
        "of all first",
    ]


@pytest.mark.parametrize("bad", ["3", "[]", '""', "[a, 3]"])
def test_a_reason_must_be_text(tmp_path: Path, bad: str) -> None:
    (tmp_path / "bad.yaml").write_text(f"{{assumed: {bad}, columns: {{a: }}, rows: {{r: }}}}")
    with pytest.raises(ConfigError, match="assumed in .* must be a text or a list of texts"):
        tables.find_table(str(tmp_path / "bad.yaml"))


def test_seeds_are_marked_and_seval_without_settings_of_its_own() -> None:
    for name in RESULTS:
        assert any("seed" in text.lower() for text in tables.find_table(name).assumed())
    for name, columns in (("4", ()), ("5", ("gamma_l=1 n1=4",)), ("9", ())):
        table = tables.find_table(name)
        rows = [row for row in table.rows if "SEVAL" in row]
        assert all(table.assumed(row) for row in rows)
        assert all(table.assumed(row, column) for row in rows for column in columns)


# ---- names


def test_a_number_is_short_for_a_table_of_the_paper(capsys: pytest.CaptureFixture) -> None:
    assert tables.find_table("2") == tables.find_table("table2")
    with pytest.raises(ConfigError, match=r"no table '12' at .*table12.yaml; tables in .*2 is short for table2.*demo"):
        tables.find_table("12")


# ---- Table 10


def test_table_10_is_read_from_the_configurations() -> None:
    table = tables.find_table("10")
    written = {(cell.row, cell.column): hyperparameters.compared(table, cell) for cell in table.cells()}
    assert written["t", C100_50] == ["0.5", "0.5"] and written["B", C100_50] == ["25", "25"]
    assert written["t_V", "STL10-LT n1=450"] == ["0.85", "0.85"] and written["t_V", "Semi-Aves U=Uin"] == ["", ""]
    assert sum(bool(reported) for _, reported in written.values()) == 62
    assert all(ours == reported for ours, reported in written.values()), "configurations agree with the paper"
    assert not any(cell.runs for cell in table.cells())


def test_a_value_other_than_the_papers_is_marked(tmp_path: Path) -> None:
    text = (tables.TABLES / "table10.yaml").read_text()
    (tmp_path / "other.yaml").write_text(text.replace("STL10-LT n1=450: 0.85", "STL10-LT n1=450: 0.8"))
    assert aggregate.main(["--table", str(tmp_path / "other.yaml"), "--out", str(tmp_path)]) == 0
    assert "| ≠ 0.8 |" in re.sub(" +", " ", (tmp_path / "other.md").read_text())
    assert r"$\neq$ 0.8" in (tmp_path / "other.tex").read_text()
    (tmp_path / "other.yaml").write_text(text.replace("  eta_pi:", "  eta_p:"))
    assert aggregate.main(["--table", str(tmp_path / "other.yaml"), "--out", str(tmp_path)]) == 2


# ---- Table 11


def slow_number(recall: list, precision: list, case: tuple[bool, bool] | None) -> int:
    above = []
    for values in (recall, precision):
        mean = statistics.fmean(value for value in values if value is not None)
        above.append([value is not None and value > mean for value in values])
    return sum(
        value is not None and case in (None, pair) for value, pair in zip(recall, zip(*above, strict=True), strict=True)
    )


def test_cases_equal_a_slow_count_and_share_out_the_classes() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        recall, precision = rng.random((2, 30)).tolist()
        precision[3] = recall[5] = None  # never predicted; no test images
        counts = {name: class_count(recall, precision, case) for name, case in CASES.items()}
        assert counts == {name: slow_number(recall, precision, case) for name, case in CASES.items()}
        assert counts.pop("classes") == sum(counts.values()) == 29


def test_table_11_reads_the_fixmatch_runs_of_tables_2_and_3(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for column in tables.find_table("11").columns:
        name = "3" if column.startswith("Semi-Aves") else "2"
        assert ids("11", "total", column) == ids(name, "FixMatch", column.removeprefix("Semi-Aves "))
    for reported in np.array(
        [
            [cells_of("11")[row, column].reported[0] for row in tables.find_table("11").rows]
            for column in tables.find_table("11").columns
        ]
    ):
        assert reported[:4].sum() == reported[4]
    for seed, run in cells_of("11")["total", C10].runs.items():
        folder = tmp_path / run.id
        folder.mkdir()
        (folder / "record.json").write_text(
            json.dumps(
                {
                    "id": run.id,
                    "results": {},
                    "per_class": {
                        "none": {
                            "recall": [0.9, 0.8, 0.1, 0.2],
                            "precision": [0.9, 0.1, 0.2 if seed == 79 else 0.8, 0.9],
                        }
                    },
                }
            )
        )
    options = ["--table", "11", "--out", str(tmp_path), "--output-dir", str(tmp_path)]
    assert aggregate.main(options) == 0
    lines = {
        line["row"]: line
        for line in csv.DictReader((tmp_path / "table11.csv").read_text().splitlines())
        if line["column"] == C10
    }
    assert lines["total"]["values"] == "4.0000 4.0000 4.0000"
    assert lines["2 low recall high precision"]["values"] == "1.0000 2.0000 2.0000"
    assert lines["4 low recall low precision"]["values"] == "1.0000 0.0000 0.0000"
    assert aggregate.main([*options, "--protocol", "mean20"]) == 2
    assert "for protocol 'last' only" in capsys.readouterr().err
