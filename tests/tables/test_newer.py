"""The table of newer methods: its numbers, the runs it shares with Tables 2 and 4, and what its rows differ in."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch

from repro.tables import table as tables
from repro.tables.page import comma_separated, latex, markdown
from repro.tables.settings import CLASSES
from seval.algorithms import ALGORITHMS
from seval.config import delta, settings
from seval.data.splits import split
from seval.policy.base import Facts
from seval.policy.language import build_policy
from tests.tables.paper import C10, C10_1500, C100, C100_50, cells_of, ids

STL = [f"STL10-LT n1={n} gamma_l={factor}" for n in (150, 450) for factor in (10, 20)]
COLUMNS = [C10, C10_1500, *(f"{c} gamma_u={u}" for u in ("1", "1/100") for c in (C10, C10_1500)), C100_50, C100, *STL]
#: By row, in the order of the columns: mean, standard deviation and mark of each number that is of no older table.
REPORTED = {
    "FixMatch": "- - - - - - - - 56.1±2.32 - 72.4±0.71 -",
    "DASO": "- - - - - - - - 70.0±1.19 - 78.4±0.8 -",
    "ACR": "- - - - 84.88±0.16‡Z 89.46±0.42‡Z - - - - - -",
    "DebiasPL": "73.49±1.05‡X 80.6±0.5†D - - 63.62±0.38‡X 69.72±0.1‡X - 58.01±0.32‡X 70.1±0.8§A 66.6±2.1§A - -",
    "SimPro, own solver": "80.7±0.3†S - 93.8±0.1†S - 85.8±0.48†S - - - - - 84.5±0.39†S 82.5±0.25†S",
    "ADELLO": "- 83.8±0.3†Z - - - 86.1±0.4†Z - 58.72±0.18†Z 75.7±0.7§A 74.6±0.4§A - -",
    "CDMAD": "79.1±1.32‡Z 83.33±0.52‡Z 87.11±0.73‡Z 90.79±0.43‡Z 74.65±1.88‡Z 77.76±0.56‡Z "
    "- 59.31±0.42‡Z 71.66±0.22‡Z 66.84±0.37‡Z - -",
    "CDMAD, own solver": "- 83.6±0.46SE - 87.5±0.5SE - - - - - - 79.9±0.23SE 75.2±0.4SE",
    "CPE": "79.8±0.94§E 83.95±0.34§E 92.3±0.17†LC 93.3±0.21†LC 83.34±0.07§E 86.7±0.14§E "
    "50.3±0.34†LC 59.83±0.16‡P 73.07±0.47‡P 69.6±0.2‡P 83.3±0.14†LC 81.7±0.34†LC",
    "SC-SSL": "83.89±0.35‡Z 86.53±0.16‡Z 93.33±0.19‡Z 93.79±0.22‡Z 86.02±0.09‡Z 89.97±0.2‡Z "
    "- 60.65±0.14‡Z 79.26±0.31‡Z 77.11±0.35‡Z - -",
    "CoSSL": "82.22±0.27‡U 85.28±0.23‡U - - 70.91±1.5‡U 75.48±0.98‡U - 59.03±0.39‡U 70.6±0.5§A 66.0±1.4§A - -",
    "CoSSL, own solver": "- 83.2±0.49§C - - - - - - - - - -",
    "CCL, own solver": "84.5±0.38†L 86.2±0.35†L 93.1±0.21†L 93.9±0.12†L 85.0±0.7†L 89.8±0.31†L "
    "53.5±0.49†L 63.5±0.39†L 79.1±0.43†L 77.1±0.33†L 84.8±0.15†L 83.1±0.18†L",
}
#: The same column in Tables 2 and 4.
OLDER = {C10: ("2", C10), C10_1500: ("2", C10_1500), C100: ("2", C100), C100_50: ("2", C100_50)}
OLDER |= {f"{c} gamma_u={u}": ("4", f"gamma_u={u} {c.split()[1]}") for u in ("1", "1/100") for c in (C10, C10_1500)}
OLDER |= {f"STL10-LT n1={n} gamma_l=20": ("2", f"STL10-LT n1={n}") for n in (150, 450)}
SHARED = {"FixMatch": "FixMatch", "DASO": "w/ DASO", "ACR": "w/ ACR", "SEVAL": "w/ SEVAL"}


def older(row: str, column: str) -> tuple[str, str, str] | None:
    """The cell of an older table that is the same."""
    name, there = OLDER.get(column, ("", ""))
    return (name, SHARED[row], there) if row in SHARED and name and SHARED[row] in rows_of(name) else None


def rows_of(name: str) -> list[str]:
    return list(tables.find_table(name).rows)


def test_every_cell_is_there() -> None:
    table = tables.find_table("newer")
    assert list(table.columns) == COLUMNS and len(cells_of("newer")) == len(table.rows) * len(COLUMNS)
    assert all(list(cell.runs) == [79, 80, 81] for cell in cells_of("newer").values())


def test_reported_numbers_and_their_marks() -> None:
    pinned = {
        (row, column): text
        for row, line in REPORTED.items()
        for column, text in zip(COLUMNS, line.split(), strict=True)
    }
    for (row, column), cell in cells_of("newer").items():
        text = pinned.get((row, column), "-")
        found = re.fullmatch(r"([\d.]+)±([\d.]+)([^\d.]*)", text)
        want = (float(found[1]), float(found[2])) if found else None
        if same := older(row, column):
            assert text == "-"
            want = cells_of(same[0])[same[1:]].reported
        assert (cell.reported, cell.mark) == (want, found[3] if found else ""), (row, column)


def test_every_mark_is_used_and_explained() -> None:
    table, cells = tables.find_table("newer"), list(cells_of("newer").values())
    assert {cell.mark for cell in cells} - {""} == set(table.marks)
    page = markdown(table, cells)
    assert all(page.count(f"\n{mark}: ") == 1 for mark in table.marks)
    assert latex(table, cells).isascii() and len(comma_separated(table, cells).splitlines()) == len(cells) + 1


def test_what_older_tables_have_too_is_the_same_runs_read_alike() -> None:
    shared = [(row, column, same) for row in SHARED for column in COLUMNS if (same := older(row, column))]
    assert len(shared) == 3 * 10 + 6  # Table 4 has no ACR
    for row, column, same in shared:
        assert ids("newer", row, column) == ids(*same)
        assert cells_of("newer")[row, column].reading == cells_of(same[0])[same[1:]].reading


@pytest.mark.parametrize("row", [row for row in rows_of("newer") if row.endswith(", own solver")])
def test_a_row_of_the_own_solver_differs_in_the_solver_alone(row: str) -> None:
    for column in COLUMNS:
        fair, own = (delta(cells_of("newer")[name, column].runs[79].cfg) for name in (row.split(",")[0], row))
        differing = {key for key in fair.keys() | own.keys() if fair.get(key) != own.get(key)}
        assert differing and all(key.startswith("SOLVER.") for key in differing)


def test_rows_of_seval_learn_on_held_out_labels_and_replay() -> None:
    for (row, column), cell in cells_of("newer").items():
        chain = list(cell.runs[79].chain())
        learned = row.startswith("SEVAL") or "learned" in row
        assert len(chain) == 1 + learned, (row, column)
        if learned:
            estimate, replay = (delta(run.cfg) for run in chain)
            assert estimate == {k: v for k, v in replay.items() if k != "PREREQUISITE"} | {
                "DATASET.HELD_OUT": "labeled"
            }
            assert cell.reading is not None and cell.reading.offset == "seval"


def test_an_exact_solver_is_all_that_differs_from_seval() -> None:
    for column in COLUMNS:
        exact, plain = (
            cells_of("newer")[row, column].runs[79].cfg.HEADS.LINEAR.POLICY for row in ("SEVAL, exact solver", "SEVAL")
        )
        assert exact.count("solver='exact'") == 2
        assert exact.replace(", solver='exact'", "").replace("(solver='exact')", "") == plain


def test_every_policy_and_algorithm_can_be_built_and_has_the_offset() -> None:
    for cell in cells_of("newer").values():
        cfg = cell.runs[79].cfg
        classes = CLASSES[cfg.DATASET.NAME]
        facts = Facts(
            classes, torch.arange(classes, 0, -1.0), 5, feature_dim=2, num_held_out=int(bool(cfg.PREREQUISITE))
        )
        policies = [build_policy(head.POLICY, facts) for head in cfg.HEADS.values() if head.LABELED_LOSS]
        assert cell.reading is not None and cell.reading.offset in ("none", *policies[-1].offsets())
        assert ALGORITHMS.build(cfg.ALGORITHM.NAME, facts, 1.0)


def test_every_run_finds_enough_images() -> None:
    seen = {}
    for cell in cells_of("newer").values():
        of_data = {key: value for key, value in settings(cell.runs[79].cfg).items() if key.startswith("DATASET")}
        seen[json.dumps(of_data)] = cell.runs[79].cfg
    for cfg in seen.values():
        classes = CLASSES[cfg.DATASET.NAME]
        labels = np.repeat(np.arange(classes), {"cifar10": 5000, "cifar100": 500, "stl10": 500}[cfg.DATASET.NAME])
        found = split(labels, cfg, pool=np.ones(9, bool) if cfg.DATASET.NAME == "stl10" else None)
        assert len(np.unique(labels[found.labeled])) == classes and len(found.unlabeled)
