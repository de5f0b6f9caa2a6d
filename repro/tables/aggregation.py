"""Writes tables from the records of their runs, and says what is missing."""

from __future__ import annotations

import argparse
import time
from contextlib import suppress
from pathlib import Path

from repro.tables.command_line import command, repeated, say
from repro.tables.interrupts import raised
from repro.tables.page import comma_separated, latex, markdown, of_one
from repro.tables.selection import Selection, asked_tables, is_open, naming, select
from seval.files import replace, told

_LEFT_OVER = 3600  # seconds after which a file that was being written is that of a process that was killed


def aggregate(args: argparse.Namespace) -> int:
    """Do what the command line asks for; returns the exit code."""
    if args.config:
        asked = select(args)
        say(*map(of_one, asked.cells()))
        return _missing(args, asked)
    output = "runs" if args.output_dir is None else args.output_dir
    options = [] if args.output_dir is None else ["--output-dir", output]
    found = {}
    for table in asked_tables(args):
        table = table.forcing(protocol=args.protocol)
        cells = list(table.cells(["OUTPUT_DIR", output]))
        if is_open(args) and not any(run.done() for cell in cells for run in cell.runs.values()):
            continue
        found[table.name] = cells
        page = markdown(table, cells, options)
        folder = args.out or table.folder
        pages = {".md": page, ".csv": comma_separated(table, cells), ".tex": latex(table, cells)}
        write(folder, table.name, pages)
        say(*([] if is_open(args) else [page]), f"{folder / table.name}.md, .csv, .tex")
    if not found:
        words = f"no table has a record in {output}; this lists the tables:\n  {repeated('submit', [])}"
        say(words, error=True)
        return int(args.strict)
    return _missing(naming(args, found) if is_open(args) else args, Selection(found))


def _missing(args: argparse.Namespace, asked: Selection) -> int:
    """Say which records are damaged and how many cells lack a run; returns the exit code."""
    uses, cells = asked.runs(), asked.cells()
    damaged = {id: words for cell in cells for id, words in cell.records.damaged.items()}
    for id, words in damaged.items():
        say(f"error: {uses[id].label}: {words}", error=True)
    short = sum(len(cell.values()) < len(cell.runs) for cell in cells)
    if short:
        words = f"runs of {short} of {len(cells)} cells are missing; this does them:\n  {command('submit', args)}"
        say(words, error=True)
    return 2 if damaged else 1 if short and args.strict else 0


def write(folder: Path, name: str, pages: dict[str, str]) -> None:
    """Write the pages, by suffix, each whole or not at all, and remove what killed processes have left of them."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise told(error, "make", folder) from None
    with raised():
        for suffix, text in pages.items():
            replace(folder / f"{name}{suffix}", text.encode("utf-8", "surrogateescape"))
        for aside in folder.glob(".*"):
            begun = tuple(f".{name}{suffix}." for suffix in pages)
            with suppress(OSError):
                if aside.name.startswith(begun) and aside.stat().st_mtime < time.time() - _LEFT_OVER:
                    aside.unlink()
