"""Writes the page, and its figures."""

from __future__ import annotations

import argparse
from pathlib import Path

from repro.pages.document import Report
from repro.tables import table as tables
from repro.tables.command_line import repeated, say
from repro.tables.interrupts import raised
from repro.tables.selection import asked_tables
from seval.errors import ConfigError
from seval.files import replace, told


def write(args: argparse.Namespace) -> int:
    """Do what the command line asks for; returns the exit code."""
    report = Report(asked_tables(args) if args.table else started(args), args)
    path = args.out / "index.html"
    try:
        args.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise told(error, "make", args.out) from None
    page = report.html(args.out).encode("utf-8", "surrogateescape")
    with raised():
        replace(path, page)
    say(f"{path}: {', '.join(report.tables)}; {len(page) / 1e6:.1f} MB")
    if args.figures:
        with raised():
            say(f"{args.figures}: {len(report.save(args.figures))} files")
    damaged = report.damaged
    say(*(f"error: {words}" for words in damaged.values()), error=True)
    return 2 if damaged else 0


def started(args: argparse.Namespace) -> list[tables.Table]:
    """The tables here of which a run has been started. Raises `ConfigError` if there is none."""
    output = "runs" if args.output_dir is None else args.output_dir
    folders = {path.name for path in Path(output).glob("*/") if any(path.glob("[rm]e*.json*"))}
    known = [tables.Table.read(path) for path in sorted(tables.TABLES.glob("*.yaml"), key=_order)] if folders else []
    found = [
        table
        for table in known
        if any(run.id in folders for cell in table.cells(["OUTPUT_DIR", output]) for run in cell.runs.values())
    ]
    if not found:
        first = repeated("submit", ["--table", "demo", *(["--output-dir", output] if args.output_dir else [])])
        where = f"no table in {tables.TABLES.name}/ has a run in {output}"
        raise ConfigError(f"{where}; this does the runs of one: {first}")
    return found


def _order(path: Path) -> tuple[int, str]:
    number = path.stem.removeprefix("table")
    return (int(number), "") if number.isdecimal() else (0, path.stem)
