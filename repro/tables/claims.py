"""What a paper claims, as comparisons of two rows over the same seeds, and whether the numbers here bear it out.

A table's YAML lists them under `claims`:

    says     the claim, in words
    paper    where the paper makes it
    more     the row whose number is larger: its name, or `row`, `column` and how it is read (`offset`, ...)
    less     the row whose number is smaller, likewise
    columns  the columns in which it is claimed; by default all that both rows have

Where a side names its `column`, the claim is about that cell, whatever the columns are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from tabulate import tabulate

from repro.tables.reading import CHOICES, Reading
from repro.tables.statistics import FEWEST, Paired, decided, paired
from repro.tables.table import Cell, Table
from repro.tables.texts import in_markdown, signed
from repro.tables.yaml_file import as_list, as_mapping, check_known
from seval.errors import ConfigError

_KEYS, _SIDE = ("says", "paper", "more", "less", "columns"), ("row", "column", *CHOICES)


class Claim(NamedTuple):
    """One comparison in one column, or between two."""

    says: str
    paper: str
    column: str  # as the table shows it
    more: Cell
    less: Cell

    def found(self) -> Paired | None:
        """The difference over the seeds that both sides have; None where there is none."""
        return paired(self.more.values(), self.less.values())


def claims(table: Table, cells: Sequence[Cell]) -> list[Claim]:
    """Those of a table, in order. Raises `ConfigError` where one names a row, column or reading that is not there."""
    by_place = {(cell.row, cell.column): cell for cell in cells}
    return [claim for number, given in enumerate(table.claims, 1) for claim in _read(table, by_place, given, number)]


def _read(table: Table, cells: Mapping[tuple[str, str], Cell], given: object, number: int) -> Iterator[Claim]:
    where = f"claim {number} of table {table.name}"
    content = as_mapping(given, where)
    check_known(content, _KEYS, f"key in {where}")
    if missing := [key for key in _KEYS[:4] if not content.get(key)]:
        raise ConfigError(f"{where} has no {missing[0]!r}")
    more, less = (_side(table, content[key], f"{key} of {where}") for key in ("more", "less"))
    columns = as_list(content.get("columns", list(table.columns)))
    check_known(columns, table.columns, f"column in {where}")
    if more.get("column") and less.get("column"):
        columns = [f"{more['column']}, {less['column']}"]
    for column in columns:
        pair = [_cell(cells, side, column) for side in (more, less)]
        if pair[0] and pair[1]:
            yield Claim(content["says"], content["paper"], column, pair[0], pair[1])


def _side(table: Table, given: object, where: str) -> dict:
    side = {"row": given} if isinstance(given, str) else as_mapping(given, where)
    check_known(side, _SIDE, f"key in {where}")
    check_known([side.get("row")], table.rows, f"row in {where}")
    check_known([side["column"]] if "column" in side else [], table.columns, f"column in {where}")
    for key, choices in CHOICES.items():
        check_known([side[key]] if key in side else [], choices, f"{key} in {where}")
    return side


def _cell(cells: Mapping[tuple[str, str], Cell], side: dict, column: str) -> Cell | None:
    cell = cells.get((side["row"], side.get("column", column)))
    if cell is None or cell.reading is None:
        return None
    given = {key: side.get(key, value) for key, value in cell.reading._asdict().items()}
    return replace(cell, reading=Reading(**given))


def report(table: Table, cells: Sequence[Cell]) -> list[str]:
    """The claims as a table in Markdown, and what its words mean; nothing for a table without claims."""
    rows = [_row(claim) for claim in claims(table, cells)]
    if not rows:
        return []
    header = ["claim", "paper", "column", "difference", "95 % interval", "seeds", "verdict"]
    body = tabulate(rows, header, "pipe", disable_numparse=True, colalign=("left", "left", "left", *["right"] * 4))
    return [
        "## Claims",
        body,
        "Difference of both rows' numbers, the mean over the seeds that both have, each seed paired with itself; "
        "Student's 95 % interval of that mean. A claim *holds* where the interval is above 0, *does not hold* where it "
        f"is below, and is *undecided* where it has 0 in it or there are fewer than {FEWEST} seeds. Of twenty claims "
        "without any difference, one is decided by chance.",
    ]


def _row(claim: Claim) -> list[str]:
    found, names = claim.found(), [in_markdown(text) for text in (claim.says, claim.paper, claim.column)]
    if found is None:
        return [*names, "—", "", "0", decided(found)]
    interval = f"{signed(found.low)} to {signed(found.high)}" if found.n > 1 else ""
    return [*names, signed(found.difference), interval, str(found.n), f"**{decided(found)}**"]
