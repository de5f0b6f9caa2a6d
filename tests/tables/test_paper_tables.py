"""The tables of the paper: which runs they are made of, and that their numbers agree."""

from __future__ import annotations

import json
from functools import cache

import numpy as np
import pytest
import torch

from repro.tables import settings as hyperparameters
from repro.tables import table as tables
from seval.config import delta, settings
from seval.data.splits import split
from seval.defaults import own_node
from seval.errors import ConfigError
from seval.policy.base import Facts
from seval.policy.language import build_policy
from seval.run import Run
from tests.tables.paper import C10, C10_1500, C100, RESULTS, cells_of, ids

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
def chains() -> dict[str, tuple[Run, ...]]:
    """Every run that a cell reads, by id, with what it stands on before it."""
    runs = {run.id: run for name in RESULTS for cell in cells_of(name).values() for run in cell.runs.values()}
    return {name: tuple(run.chain()) for name, run in runs.items()}


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


def test_a_number_is_short_for_a_table_of_the_paper(capsys: pytest.CaptureFixture) -> None:
    assert tables.find_table("2") == tables.find_table("table2")
    with pytest.raises(ConfigError, match=r"no table '12' at .*table12.yaml; tables in .*2 is short for table2.*demo"):
        tables.find_table("12")
