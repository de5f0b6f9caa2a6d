"""Bring docs/evidence.md, its figures and README's table up to date with the records of paper_tables/evidence.yaml.

Between `<!-- NAME -->` and `<!-- /NAME -->` a page's text is written here; all other text is written by hand.
"""

from __future__ import annotations

import argparse
import csv
import io
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout, also without an installation

from docs.figures import draw, plotting
from repro.tables import claims
from repro.tables.marks import by_column, correlations, marked
from repro.tables.page import number, origin
from repro.tables.reading import OF_TAIL, OFFSETS, PSEUDO_LABELS, Reading
from repro.tables.selection import Selection
from repro.tables.statistics import Ranks
from repro.tables.table import Cell, Table, find_table
from repro.tables.texts import signed
from seval.errors import ConfigError, SevalError
from seval.files import replace

ROOT = Path(__file__).resolve().parents[1]
#: README shows these rows only.
MAIN = ("Supervised", "Supervised + LA", "FixMatch", "FixMatch + post-hoc LA", "SEVAL-PL", "SEVAL")
#: Not methods to compare with, so in a table of their own.
FOLLOW_UPS = ("SEVAL, moving average at test time", "SEVAL-PL, fitted on validation images",
              "SEVAL, fitted on validation images", "Supervised, 6,000 steps", "FixMatch, 6,000 steps",
              "FixMatch + post-hoc LA, 6,000 steps")  # fmt: skip
COMPARED = ("FixMatch", "SEVAL-PL")  # by class, in the first figure
#: More is shown of these.
EXPLAINED = ("FixMatch", "SEVAL-PLR", "SEVAL-THA", "SEVAL-PL", "SEVAL-PL, exact fits",
             "SEVAL-PL, fitted on validation images")  # fmt: skip
READINGS = {f"top1 {name}": Reading(offset=name, protocol="last") for name in OFFSETS[:4]}
READINGS |= {name: Reading(metric=name, protocol="last") for name in (*PSEUDO_LABELS, *OF_TAIL)}
EXAMPLE = """\
`make evidence` does the runs and calls this. Runs that are done elsewhere are found by --output-dir:

  python docs/evidence.py --output-dir runs
"""


def results(table: Table, cells: Iterable[Cell], rows: Sequence[str], beside: bool = False) -> str:
    """The numbers of the rows as Markdown, the best of each column marked; `beside` adds the paper's numbers."""
    by_place = {(cell.row, cell.column): cell for cell in cells if cell.row in rows}
    best = by_column(by_place.values())
    header, body = ["Method", *table.columns, *(f"{column}, paper" for column in table.columns if beside)], []
    for row in dict.fromkeys(row for row, _ in by_place):
        line = [by_place[row, column] for column in table.columns]
        reported = [f"{cell.reported[0]}" if cell.reported else "" for cell in line if beside]
        body.append([row, *(_marked(cell, best) for cell in line), *reported])
    return tabulate(body, header, "pipe", disable_numparse=True, colalign=("left", *["right"] * (len(header) - 1)))


def _marked(cell: Cell, best: Mapping[str, Ranks]) -> str:
    text = number(list(cell.values().values()), len(cell.runs)) if cell.runs else ""
    return text if cell.row in FOLLOW_UPS else marked(text, cell.row, best[cell.column])


def readings(cells: Sequence[Cell]) -> str:
    """More of the same records as Markdown: means over the seeds of every reading."""
    lines = {}
    for cell in cells:
        if cell.row in EXPLAINED and cell.runs:
            known = [record for run in cell.runs.values() if (record := cell.records.of(run))]
            found = [[float(text) for record in known if (text := _read(one, record))] for one in READINGS.values()]
            lines[cell.row, cell.column] = [
                signed(float(np.mean(values))).lstrip("+") if values else "" for values in found
            ]
    body = [[row, column, *values] for (row, column), values in lines.items()]
    header = ["Method", "column", "no offset", "LA", "learned", "smoothed", "Gain", "Correctness", "tail precision",
              "tail recall"]  # fmt: skip
    return tabulate(body, header, "pipe", disable_numparse=True, colalign=("left", "left", *["right"] * len(READINGS)))


def ranks(cells: Sequence[Cell]) -> str:
    """A line for each column: Kendall's tau with the paper's numbers."""
    return "\n".join(
        f"- {name.split()[0]}: Kendall's τ {signed(tau)}, 95 % interval {signed(low)} to {signed(high)}, {rows} rows"
        for name, (tau, (low, high), rows) in correlations(cells).items()
    )


def records(cells: Sequence[Cell]) -> str:
    """A line for each run as CSV: what it is, every number that is read from it in percent, and where it was made."""
    text = io.StringIO()
    names = ("id", "row", "column", "seed", "is_prerequisite", "prerequisites", *READINGS)
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*names, "seconds", "commit", "device", "finished"])
    for use in Selection({"": list(cells)}).runs().values():
        record = use.cell.records.of(use.run)
        assert record
        made = record["provenance"]
        writer.writerow(
            [record["id"], use.cell.row, use.cell.column, use.seed, int(use.is_prerequisite)]
            + [" ".join(run.id for run in use.run.chain()[:-1])]
            + [_read(reading, record) for reading in READINGS.values()]
            + [record["seconds"], str(made["commit"])[:10], made["device"], made["finished"]]
        )
    return text.getvalue()


def _read(reading: Reading, record: Mapping) -> str:
    try:
        value = reading.of(record)
    except ConfigError:  # a method without this offset
        return ""
    return "" if value is None else f"{value:.4f}"


def trials(path: Path) -> str:
    """The runs by which the setting was chosen, as Markdown."""
    header, *rows = csv.reader(path.read_text().splitlines())
    return tabulate(rows, header, "pipe", disable_numparse=True, colalign=["right"] * len(header))


def by_class(table: Table, cells: Sequence[Cell], out: Path) -> None:
    """Draw precision and recall of kept pseudo-labels, class by class: mean and standard deviation over the seeds."""
    pyplot = plotting()
    columns = list(table.columns)
    figure, grid = pyplot.subplots(2, len(columns), figsize=(10.5, 5.6), sharex=True, sharey=True, squeeze=False)
    for axes, key in zip(grid, ("recall", "precision"), strict=True):
        for ax, column in zip(axes, columns, strict=True):
            for place, row in enumerate(COMPARED):
                cell = next(cell for cell in cells if (cell.row, cell.column) == (row, column))
                _bars(ax, cell, key, 0.4 * place - 0.2, ("#9aa5b1", "#0072b2")[place])
            ax.set_title(f"{key} of kept pseudo-labels, {column}", loc="left")
            ax.spines[["top", "right"]].set_visible(False)
            ax.set_ylim(0, 1)
    names = next(iter(cells[0].runs.values())).image_set.class_names
    for ax in grid[-1]:
        ax.set_xticks(range(1, len(names) + 1), names, rotation=40, ha="right")
    figure.legend(*grid[0][0].get_legend_handles_labels(), loc="lower right", ncols=2, frameon=False)
    figure.text(0.01, 0.02, "left: most labels   right: fewest labels", color="0.35")
    figure.tight_layout(rect=(0, 0.04, 1, 1))
    figure.savefig(out, metadata={"Date": None})
    pyplot.close(figure)


def _bars(ax: Any, cell: Cell, key: str, shift: float, color: str) -> None:
    known = [record["pseudo_labels"][key] for run in cell.runs.values() if (record := cell.records.of(run))]
    values = np.array(known, float)  # (seeds, C); None, where a class has no pseudo-label, becomes nan
    values = np.where(np.isnan(values), 0.0, values)
    places = np.arange(1, values.shape[1] + 1)
    ax.bar(places + shift, values.mean(0), 0.4, yerr=values.std(0), color=color, label=cell.row, error_kw={"lw": 0.8})


def fill(page: Path, blocks: Mapping[str, str]) -> None:
    """Write each block between its marks. Raises `ConfigError` where a page lacks them."""
    text = page.read_text()
    for name, block in blocks.items():
        text, found = re.subn(
            rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", lambda marks, new=block: f"{marks[1]}\n{new}\n\n{marks[2]}",
            text, flags=re.DOTALL,
        )  # fmt: skip
        if found != 1:
            raise ConfigError(f"{page} has {found} places between <!-- {name} --> and <!-- /{name} -->, not 1")
    replace(page, text.encode())


def update(table: Table, output: str, docs: Path, readme: Path) -> None:
    """Write all of it. Raises `ConfigError` while runs are missing, since the page is about all of them."""
    cells = list(table.cells(["OUTPUT_DIR", output]))
    uses = Selection({table.name: cells}).runs().values()
    if missing := [use.run.id for use in uses if use.cell.records.of(use.run) is None]:
        raise ConfigError(
            f"{len(missing)} of {len(uses)} runs of table {table.name} are missing; make evidence does them"
        )
    _, found, legend = claims.report(table, cells)
    blocks = {
        "results": results(table, cells, [row for row in table.rows if row not in FOLLOW_UPS], beside=True),
        "origin": origin(table, cells),
        "claims": f"{found}\n\n{legend}",
        "ranks": ranks(cells),
        "follow-ups": results(table, cells, FOLLOW_UPS),
        "readings": readings(cells),
        "trials": trials(docs / "evidence_trials.csv"),
    }
    by_class(table, cells, docs / "figures" / "evidence_classes.svg")
    estimate = next(cell for cell in cells if cell.row == COMPARED[-1]).runs[0].prerequisite()
    assert estimate
    draw(estimate.folder, docs / "figures" / "curriculum.svg")
    replace(docs / "evidence.csv", records(cells).encode())
    fill(docs / "evidence.md", blocks)
    fill(readme, {"evidence": results(table, cells, MAIN)})


def main(argv: Sequence[str] | None = None) -> int:
    """0, or 2 and one line on standard error."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output-dir", default="runs", help="folder of the runs")
    args = parser.parse_args(argv)
    try:
        update(find_table("evidence"), args.output_dir, ROOT / "docs", ROOT / "README.md")
    except (OSError, SevalError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("docs/evidence.md, docs/evidence.csv, two figures in docs/figures, README.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
