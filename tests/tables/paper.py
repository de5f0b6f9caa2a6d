"""The cells and runs of the tables of the paper, for the tests of them."""

from __future__ import annotations

from functools import cache

from repro.tables import table as tables
from repro.tables.table import Cell

RESULTS = [str(number) for number in range(2, 10)]
C10, C10_1500, C100, C100_50 = "CIFAR10-LT n1=500", "CIFAR10-LT n1=1500", "CIFAR100-LT n1=150", "CIFAR100-LT n1=50"


@cache
def cells_of(name: str) -> dict[tuple[str, str], Cell]:
    return {(cell.row, cell.column): cell for cell in tables.find_table(name).cells(["OUTPUT_DIR", "nowhere"])}


def ids(name: str, row: str, column: str) -> list[str]:
    return [run.id for run in cells_of(name)[row, column].runs.values()]
