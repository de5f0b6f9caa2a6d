"""A table on the page: its numbers beside the reported ones, what the test says of them, and what is missing."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence

from repro.pages import html
from repro.pages.html import prose, tag, text
from repro.tables import settings
from repro.tables.command_line import command
from repro.tables.marks import by_column, compared, explained, legend, ours, signed, word
from repro.tables.page import HEADING, Footnotes, result, what
from repro.tables.reading import CHOICES, Reading
from repro.tables.statistics import LEVEL, Ranks
from repro.tables.table import Cell, Table

Anchor = Callable[[Cell], str | None]  # the place on the page of what a cell's runs have left, if anything


def section(table: Table, cells: Sequence[Cell], anchor: Anchor, args: Namespace) -> str:
    """Title, note, numbers, and all that a reader has to know of them."""
    results, notes = table.kind == "results", Footnotes(table)
    below = [prose(f"{what(Reading(*(table.common[key] for key in CHOICES)))}.")] if results else []
    below += map(prose, [*explained(cells), *legend(table, cells)])
    if any(map(compared, cells)):
        below.append(f"Below each difference is the interval that covers it with {1 - LEVEL:.0%}.")
    reasons = [tag("li", prose(reason)) for reason in notes.numbers]
    return tag(
        "section",
        tag("h2", text(table.title)),
        tag("p", prose(table.note)) if table.note else "",
        numbers(table, cells, notes, anchor),
        *(tag("p", line, class_="small") for line in below),
        html.folded(text(HEADING.rstrip(":")), tag("ol", *reasons)) if reasons else "",
        missing(table, cells, args) if results else "",
        id=f"table-{table.name}",
    )


def numbers(table: Table, cells: Sequence[Cell], notes: Footnotes, anchor: Anchor) -> str:
    """The table itself; a column with reported numbers takes four."""
    results, best = table.kind == "results", by_column(cells)
    beside = ["ours", "reported", "difference", "verdict"] if results else ["here", "reported"]
    wide = {cell.column for cell in cells if cell.reported}
    above, below, rows = [tag("td")], [tag("th", "Method" if results else "Setting", scope="col")], {}
    for column in table.columns:
        parts = beside if column in wide else beside[:1]
        title = text(column) + _marks(notes, table.assumed(None, column))
        above.append(tag("th", title, colspan=len(parts), class_="group"))
        below += [tag("th", text(part), scope="col") for part in parts]
    for cell in cells:
        head = tag("th", text(cell.row) + _marks(notes, table.assumed(cell.row)), scope="row")
        row = rows.setdefault(cell.row, [head])
        marks = _marks(notes, table.assumed(cell.row, cell.column))
        found = _result(cell, best[cell.column], anchor, marks) if results else _setting(table, cell, marks)
        row += found if cell.column in wide else found[:1]
    head = tag("tr", *above, class_="columns") + tag("tr", *below)
    body = [tag("tr", *row) for row in rows.values()]
    return html.scrolled(tag("table", tag("thead", head), tag("tbody", *body), data_sort=True))


def _marks(notes: Footnotes, reasons: Sequence[str]) -> str:
    return tag("sup", ", ".join(str(notes.numbers[reason]) for reason in reasons)) if reasons else ""


def _result(cell: Cell, ranks: Ranks, anchor: Anchor, marks: str) -> list[str]:
    """Ours, the reported number, the difference with its interval, and the verdict."""
    shown, reported, difference, verdict = result(cell)
    sample, test, place = ours(cell), compared(cell), anchor(cell)
    shown = tag("a", text(shown), href=f"#{place}") if place else text(shown)
    if cell.row in ranks.best:
        shown = tag("b", shown)
    elif cell.row in ranks.second:
        shown = tag("em", shown)
    if cell.row in ranks.tied - ranks.best:
        shown += tag("span", " ≈", title="not separable from the best of its column")
    interval = tag("small", f"{signed(test.low)} … {signed(test.high)}") if test else ""
    p = f"p = {test.p:.3f}" if test else None
    return [
        tag("td", shown + marks, data_value=sample.mean if sample else ""),
        tag("td", text(reported), data_value=cell.reported[0] if cell.reported else None),
        tag("td", text(difference), interval, data_value=test.difference if test else None),
        tag("td", tag("span", verdict, class_=f"word {verdict.split(' ')[0]}", title=p) if verdict else ""),
    ]


def _setting(table: Table, cell: Cell, marks: str) -> list[str]:
    first, reported = settings.compared(table, cell)
    return [tag("td", text(first) + marks), tag("td", text(reported))]


def missing(table: Table, cells: Sequence[Cell], args: Namespace) -> str:
    """Which seeds of which cells have no record yet, and the command that does them."""
    lacking = []
    for cell in cells:
        values = cell.values()
        if seeds := [_state(cell, seed) for seed in cell.runs if seed not in values]:
            lacking.append((cell, seeds))
    if not lacking:
        return ""
    rows = list(dict.fromkeys(cell.row for cell, _ in lacking))
    narrowed = rows if len(rows) < len(table.rows) else []
    asked = {"table": [table.source], "all": False, "config": None, "overrides": [], "rows": narrowed}
    line = command("submit", Namespace(**asked, output_dir=args.output_dir))
    items = [
        tag("li", text(" · ".join(filter(None, (cell.row, cell.column)))), ": seed ", text(", ".join(seeds)))
        for cell, seeds in lacking
    ]
    total = sum(len(cell.runs) for cell in cells)
    count = sum(len(seeds) for _, seeds in lacking)
    return html.folded(
        f"{count} of {total} numbers are missing",
        tag("p", "This does what they need:"),
        html.command(line),
        tag("ul", *items),
        class_="missing",
        open=count < 10,
    )


def _state(cell: Cell, seed: int) -> str:
    return f"{seed} (damaged)" if cell.runs[seed].id in cell.records.damaged else str(seed)


def overview(tables: Mapping[str, tuple[Table, Sequence[Cell]]]) -> str:
    """A line for each table: how much of it is there, and how it compares."""
    rows = []
    for name, (table, cells) in tables.items():
        if table.kind != "results":
            continue
        wanted, there = (sum(len(part) for part in parts) for parts in _counts(cells))
        words = [word(cell) for cell in cells]
        link = tag("a", text(table.title.partition(":")[0]), href=f"#table-{name}")
        share = tag("meter", value=there, max=wanted, aria_label=f"{there} of {wanted}")
        counts = [str(words.count(each)) if any(words) else "" for each in ("agrees", "differs", "too few seeds")]
        rows.append([link, f"{there} of {wanted} {share}", *counts])
    return html.table(["Table", "numbers", "agree", "differ", "too few seeds"], rows) if rows else ""


def _counts(cells: Sequence[Cell]) -> tuple[list, list]:
    return [cell.runs for cell in cells], [cell.values() for cell in cells]
