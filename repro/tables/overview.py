"""What there is to train: the tables, by name and title, and commands to begin with."""

from __future__ import annotations

from pathlib import Path

from repro.tables import table
from repro.tables.command_line import repeated
from seval.errors import ConfigError
from seval.text import printable


def overview() -> str:
    """For who calls submit.py without a word."""
    files = sorted(
        table.TABLES.glob("*.yaml"), key=lambda file: (not _number(file.stem), _number(file.stem), file.stem)
    )
    width = max((len(file.stem) for file in files), default=0)
    lines = [f"  {file.stem:{width}}  {_title(file)}" for file in files]
    names = [file.stem for file in files]
    example = "demo" if "demo" in names else next(iter(names), "NAME")
    begin = [
        ["--table", example, "--dry-run"],
        ["--all", "--dry-run"],
        ["--config", "configs/tiny/fixmatch.yaml", "SEED", "1"],
    ]
    head = "Which runs? Those of a table, of all tables of the paper, or of a single configuration:"
    commands = [f"  {repeated('submit', words)}" for words in begin]
    there = f"Tables in {table.TABLES.name} (2 is short for table2; --help has more examples):"
    return "\n".join([head, *commands, "", there, *(lines or ["  none"])])


def _number(name: str) -> int:
    digits = name.removeprefix("table")
    return int(digits) if digits.isdecimal() else 0


def _title(file: Path) -> str:
    try:
        title = table.Table.read(file).title
    except (ConfigError, OSError) as error:
        title = f"cannot be used: {error}"
    return printable(" ".join(str(title).removeprefix(f"Table {_number(file.stem)}: ").split()))[:100]
