"""Table 11: numbers of classes, read from the records of other tables."""

from __future__ import annotations

import csv
import json
import statistics
from pathlib import Path

import numpy as np
import pytest

from repro import aggregate
from repro.tables import table as tables
from repro.tables.reading import CASES, Reading, class_count
from seval.errors import ConfigError, RecordError
from tests.tables.paper import C10, cells_of, ids


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


def test_the_tail_of_pseudo_labels_is_the_third_of_the_classes_with_the_fewest_labels() -> None:
    quality = {"precision": [0.9, 0.2, 0.6, None, 0.8, 0.1, 0.7], "recall": [0.9, 0.1, 0.5, 0.0, 0.8, 0.3, 0.6]}
    counts = [70, 5, 30, 5, 50, 20, 40]  # the rarest third of seven: two of five labels, and the one of twenty
    record = {"pseudo_labels": quality, "splits": {"labeled": {"class_counts": counts}}}
    found = {name: Reading(metric=f"tail_{name}", protocol="last").of(record) for name in quality}
    assert found == pytest.approx({"precision": 100 * (0.2 + 0.1) / 2, "recall": 100 * (0.1 + 0.0 + 0.3) / 3})
    assert Reading(metric="tail_recall", protocol="last").of(record | {"pseudo_labels": None}) is None
    with pytest.raises(ConfigError, match="tail_recall with protocol 'median20'.*'last' only"):
        Reading(metric="tail_recall").of(record)


def test_gain_and_correctness_are_those_of_the_record_and_a_gain_may_be_negative() -> None:
    record = {"id": "ab", "pseudo_labels": {"gain": -0.02, "correctness": 0.7}}
    assert Reading(metric="gain", protocol="last").of(record) == pytest.approx(-2)
    assert Reading(metric="correctness", protocol="last").of(record) == pytest.approx(70)
    assert Reading(metric="gain", protocol="last").of({"id": "ab", "pseudo_labels": {}}) is None
    for wrong in ("0.1", [0.1], True):
        with pytest.raises(RecordError, match="its gain of pseudo-labels is"):
            Reading(metric="gain", protocol="last").of({"pseudo_labels": {"gain": wrong}})
    with pytest.raises(ConfigError, match="gain with network 'raw'"):
        Reading(metric="gain", network="raw", protocol="last").of(record)
