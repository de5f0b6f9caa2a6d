"""Every number of docs/evidence.md and of README's table is that of docs/evidence.csv, computed anew from its lines."""

from __future__ import annotations

import csv
import re
import statistics
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from docs import evidence
from repro.tables import claims
from repro.tables.table import Cell, Table, find_table
from repro.tables.texts import in_markdown
from seval.errors import ConfigError
from tests.settings import ROOT, SMALL

PAGE, README = ROOT / "docs" / "evidence.md", ROOT / "README.md"
BLOCK = r"<!-- {} -->\n(.*?)<!-- /{} -->"
TABLE = find_table("evidence")
CELLS = list(TABLE.cells())
LINES = {line["id"]: line for line in csv.DictReader((ROOT / "docs" / "evidence.csv").read_text().splitlines())}


def block(name: str, page: Path = PAGE) -> str:
    return re.search(BLOCK.format(name, name), page.read_text(), re.DOTALL)[1].strip()


def rows(text: str) -> list[list[str]]:
    """Of a table in Markdown, without the marks of best and second."""
    found = [[word.strip() for word in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    return [[re.sub(r"[*≈ ]+$|^\*+", "", word) for word in line] for line in [found[0], *found[2:]]]


def number(text: str) -> float:
    return float(text.replace("−", "-"))


def values(cell: Cell) -> dict[int, float]:
    """By seed, from the CSV alone."""
    metric, offset = cell.reading.metric, cell.reading.offset
    found = {seed: LINES[run.id][f"top1 {offset}" if metric == "top1" else metric] for seed, run in cell.runs.items()}
    return {seed: float(text) for seed, text in found.items() if text}


def test_the_csv_has_every_run_of_the_table_once_and_no_other():
    chains = {run.id: last.chain() for cell in CELLS for last in cell.runs.values() for run in last.chain()}
    assert LINES.keys() == chains.keys()
    for cell in CELLS:
        for run in cell.runs.values():
            assert LINES[run.id]["prerequisites"].split() == [other.id for other in run.chain()[:-1]]
            assert LINES[run.id]["is_prerequisite"] == "0"


@pytest.mark.parametrize(
    "name, page, some",
    [
        ("results", PAGE, [row for row in TABLE.rows if row not in evidence.FOLLOW_UPS]),
        ("follow-ups", PAGE, evidence.FOLLOW_UPS),
        ("evidence", README, evidence.MAIN),
    ],
)
def test_results_are_means_and_deviations_of_the_csv(name, page, some):
    (_, *header), *body = rows(block(name, page))
    assert [line[0] for line in body] == list(some)
    shown = {(line[0], column): text for line in body for column, text in zip(header, line[1:], strict=True)}
    for cell in CELLS:
        if cell.row not in some:
            continue
        known = list(values(cell).values()) if cell.runs else []
        assert len(known) == len(cell.runs)
        text = f"{statistics.fmean(known):.2f} ± {statistics.pstdev(known):.2f}" if known else ""
        assert shown[cell.row, cell.column] == text
        if name == "results":
            assert shown[cell.row, f"{cell.column}, paper"] == (str(cell.reported[0]) if cell.reported else "")


def test_claims_are_paired_differences_of_the_csv():
    (*_,), *body = rows(block("claims"))
    found = claims.claims(TABLE, CELLS)
    assert len(body) == len(found) > 20
    for claim, (says, paper, column, difference, interval, seeds, verdict) in zip(found, body, strict=True):
        assert (says, paper, column) == tuple(map(in_markdown, (claim.says, claim.paper, claim.column)))
        more, less = values(claim.more), values(claim.less)
        paired = [(more[seed], less[seed]) for seed in sorted(more.keys() & less.keys())]
        tested = stats.ttest_rel(*map(list, zip(*paired, strict=True)))
        low, high = tested.confidence_interval(0.95)
        assert number(difference) == pytest.approx(np.mean([a - b for a, b in paired]), abs=0.0051)
        assert [number(text) for text in interval.split(" to ")] == pytest.approx([low, high], abs=0.0051)
        assert int(seeds) == len(paired) >= 3
        assert verdict == ("holds" if low > 0 else "does not hold" if high < 0 else "undecided")


def test_rank_correlations_are_kendalls_tau_of_the_csv_and_the_paper():
    for column, line in zip(TABLE.columns, block("ranks").splitlines(), strict=True):
        pairs = [
            (statistics.fmean(values(cell).values()), cell.reported[0])
            for cell in CELLS
            if cell.column == column and cell.reported
        ]
        tau, low, high, count = re.search(r"τ (\S+), 95 % interval (\S+) to (\S+), (\d+) rows", line).groups()
        assert number(tau) == pytest.approx(stats.kendalltau(*zip(*pairs, strict=True)).statistic, abs=0.0051)
        assert number(low) <= number(tau) <= number(high) and int(count) == len(pairs)


def test_more_readings_are_means_of_the_csv():
    (_, _, *header), *body = rows(block("readings"))
    assert len(header) == len(evidence.READINGS)
    for row, column, *shown in body:
        (cell,) = (cell for cell in CELLS if (cell.row, cell.column) == (row, column))
        for key, text in zip(evidence.READINGS, shown, strict=True):
            known = [float(LINES[run.id][key]) for run in cell.runs.values() if LINES[run.id][key]]
            assert text.replace("−", "-") == (f"{statistics.fmean(known):.2f}" if known else "")


def test_the_page_names_runs_hours_commit_and_machine_of_the_csv():
    minutes = round(sum(float(line["seconds"]) for line in LINES.values()) / 60)
    said = block("origin")
    assert said.startswith(f"{len(LINES)} runs with their prerequisites, {minutes // 60} h {minutes % 60:02d} min ")
    for key in ("commit", "device"):
        assert {line[key] for line in LINES.values()} == {one for line in LINES.values() if (one := line[key]) in said}


def test_trials_are_those_of_their_csv_and_gains_are_differences():
    (*_,), *listed = csv.reader((ROOT / "docs" / "evidence_trials.csv").read_text().splitlines())
    assert rows(block("trials"))[1:] == listed
    for *_, supervised, _, fixmatch, _, gain in listed:
        assert number(gain) == pytest.approx(float(fixmatch) - float(supervised), abs=1e-9)
    tried = {line[3] for line in listed} - {"not noted"}
    assert tried and not tried & {str(seed) for cell in CELLS for seed in cell.runs}


def test_every_decimal_written_by_hand_stands_in_a_table_of_the_page():
    text = PAGE.read_text()
    blocks = " ".join(block(name) for name in re.findall(r"<!-- ([\w-]+) -->", text))
    prose = re.sub(BLOCK.format(r"[\w-]+", r"[\w-]+"), "", text, flags=re.DOTALL)
    prose = re.sub(r"`[^`]*`|\]\([^)]*\)|arXiv [\d.]+", "", prose)
    written = set(re.findall(r"\d+\.\d+", prose))
    assert len(written) > 5 and written <= set(re.findall(r"\d+\.\d+", blocks))
    section = re.search(r"## What the method gains\n(.*?)\n## ", README.read_text(), re.DOTALL)[1]
    reported = {str(found[0]) for row in TABLE.reported.values() for found in row.values()}
    said = set(re.findall(r"\d+\.\d+", re.sub(BLOCK.format("evidence", "evidence"), "", section, flags=re.DOTALL)))
    assert said <= reported | set(re.findall(r"\d+\.\d+", blocks))


def small(folder: Path) -> Table:
    """Some of the table with the settings of the tests."""
    table = replace(TABLE, claims=[claim for claim in TABLE.claims if claim["less"] == "Supervised"])
    table = table.forcing(rows=evidence.MAIN, columns=["consistent"], seeds=[0, 1])
    return replace(table, common=table.common | {"set": SMALL})


def test_the_pages_are_written_from_records_and_only_when_all_are_there(tmp_path):
    pytest.importorskip("matplotlib")
    (tmp_path / "figures").mkdir()
    for page in (PAGE, README, PAGE.with_name("evidence_trials.csv")):
        (tmp_path / page.name).write_bytes(page.read_bytes())
    table, output, readme = small(tmp_path), str(tmp_path / "runs"), tmp_path / "README.md"
    runs = {run.id: run for cell in table.cells(["OUTPUT_DIR", output]) for run in cell.runs.values()}
    *others, last = [run for end in runs.values() for run in end.chain()]
    for run in others:
        run.execute()
    with pytest.raises(ConfigError, match="1 of 10 runs.*are missing; make evidence does them"):
        evidence.update(table, output, tmp_path, readme)
    assert readme.read_bytes() == README.read_bytes()
    last.execute()
    evidence.update(table, output, tmp_path, readme)
    written = list(csv.DictReader((tmp_path / "evidence.csv").read_text().splitlines()))
    assert len(written) == 10 and {line["row"] for line in written} == {*evidence.MAIN[:3], "SEVAL-PL"}
    for line in written:
        record = next(run for end in runs.values() for run in end.chain() if run.id == line["id"]).record()
        expected = 100 * record["results"]["test"]["ema"]["none"]["top1"]["last"]
        assert float(line["top1 none"]) == pytest.approx(expected, abs=1e-4)
    header, *body = rows(block("evidence", readme))
    assert header == ["Method", "consistent"] and len(body) == len(evidence.MAIN)
    assert all(
        (tmp_path / "figures" / name).stat().st_size > 9000 for name in ("evidence_classes.svg", "curriculum.svg")
    )
    before = (tmp_path / "evidence.md").read_bytes()
    evidence.update(table, output, tmp_path, readme)
    assert (tmp_path / "evidence.md").read_bytes() == before
    readme.write_text("no marks")
    with pytest.raises(ConfigError, match="0 places between <!-- evidence -->"):
        evidence.update(table, output, tmp_path, readme)
