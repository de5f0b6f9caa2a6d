"""A table as Markdown, LaTeX and CSV: its numbers beside the reported ones, and what a reader has to know."""

from __future__ import annotations

import csv
import io
import shlex
from collections.abc import Callable, Iterable, Sequence

from tabulate import tabulate

from repro.tables.claims import report
from repro.tables.marks import by_column, explained, legend, marked, word
from repro.tables.reading import CASES, CHOICES, METRICS, NETWORKS, PROTOCOLS, SPLITS, Reading, mean_std
from repro.tables.selection import Selection
from repro.tables.settings import compared
from repro.tables.table import Cell, Table
from repro.tables.texts import (
    bold,
    in_ascii,
    in_code,
    in_csv,
    in_latex,
    in_markdown,
    in_title,
    paragraph,
    prose,
    superscripts,
)
from seval.places import plainly
from seval.text import printable

HEADING = "Assumed where the paper leaves a choice:"
_CSV = ("row", "column", "mean", "std", "n", "seeds_wanted", "seeds", "values", "ids", *CHOICES,
        "reported_mean", "reported_std", "reported_mark", "verdict", "assumed")  # fmt: skip


class Footnotes:
    """Every assumption once, numbered in the order of reading: table, columns, then each row and its cells."""

    def __init__(self, table: Table) -> None:
        self.table = table
        places = [(None, None), *((None, column) for column in table.columns)]
        places += [(row, column) for row in table.rows for column in (None, *table.columns)]
        reasons = dict.fromkeys(reason for place in places for reason in table.assumed(*place))
        self.numbers = {reason: number for number, reason in enumerate(reasons, 1)}

    def marked(self, text: str, row: str | None = None, column: str | None = None) -> str:
        """The text followed by the marks of that row, column, cell or table, as Markdown footnotes."""
        return text + "".join(f"[^{self.numbers[reason]}]" for reason in self.table.assumed(row, column))

    def markdown(self) -> str:
        """All assumptions, a line each."""
        lines = [f"[^{number}]: {prose(_line(reason))}" for reason, number in self.numbers.items()]
        return "\n".join([HEADING, "", *lines]) if lines else ""

    def reasons(self, row: str, column: str) -> str:
        """All that concern a cell, in one text."""
        places = ((None, None), (None, column), (row, None), (row, column))
        reasons = (_line(reason) for place in places for reason in self.table.assumed(*place))
        return " ".join(dict.fromkeys(reasons))

    def latex(self) -> str:
        """All assumptions as a paragraph below the tabular."""
        lines = [f"$^{{{number}}}$~{in_latex(_line(reason))}" for reason, number in self.numbers.items()]
        return paragraph([HEADING, *lines]) if lines else ""


def _line(text: str) -> str:
    return " ".join(text.split())


def number(values: Sequence[float], wanted: int) -> str:
    """`82.80 ± 0.56`, followed by `[2/3]` where seeds are missing; `—` for none."""
    if not values:
        return "—"
    mean, std = mean_std(values)
    return (
        f"{mean:.2f}"
        + (f" ± {std:.2f}" if len(values) > 1 else "")
        + (f" [{len(values)}/{wanted}]" if len(values) < wanted else "")
    )


def grid(table: Table, cells: Sequence[Cell], name: Callable[[str], str]) -> list[list[str]]:
    """The header, then the rows, as text; a column with reported numbers is followed by them and by the difference.

    Where the table is of settings, by the reported ones only. Names, each written as `name` has it, and numbers carry
    the marks of what they assume.
    """
    notes, with_reported = Footnotes(table), {cell.column for cell in cells if cell.reported}
    results = table.kind == "results"
    beside = ["reported", "ours − reported", "verdict"] if results else ["reported"]
    best = by_column(cells)
    header, rows = [notes.marked("Method" if results else "Setting")], {}
    for column in table.columns:
        header += [notes.marked(name(column), column=column), *(beside if column in with_reported else [])]
    for cell in cells:
        first, *others = result(cell) if results else compared(table, cell)
        row = rows.setdefault(cell.row, [notes.marked(name(cell.row), cell.row)])
        first = marked(first, cell.row, best[cell.column])
        row += [notes.marked(first, cell.row, cell.column), *(others if cell.column in with_reported else [])]
    return [header, *rows.values()]


def result(cell: Cell) -> list[str]:
    """The mean of its runs, the reported mean, the difference, and what a test says of it."""
    values = list(cell.values().values())
    mean, std = cell.reported or (None, None)
    return [
        number(values, len(cell.runs)) if cell.runs else "",
        " ".join(filter(None, [_reported(mean, std), cell.mark])),
        f"{mean_std(values)[0] - mean:+.2f}".replace("-", "−") if values and mean is not None else "",
        word(cell),
    ]


def _reported(mean: float | None, std: float | None) -> str:
    return "" if mean is None else f"{mean} ± {std:.2f}" if std is not None else f"{mean}"


def markdown(table: Table, cells: Sequence[Cell], options: Sequence[str] = ()) -> str:
    """The whole page: title, note, table, and what a reader has to know; `options` are those of the commands in it."""
    header, *rows = grid(table, cells, in_markdown)
    body = tabulate(rows, header, "pipe", disable_numparse=True, colalign=_align(header))
    below = footer(table, cells, options) if table.kind == "results" else [_writes(table, options)]
    parts = [f"# {in_title(table.title)}", prose(table.note), body, *below, *report(table, cells)]
    parts.append(Footnotes(table).markdown())
    return "\n\n".join(filter(None, parts)) + "\n"


def _align(header: Sequence[str]) -> tuple[str, ...]:
    return ("left", *["right"] * (len(header) - 1))


def footer(table: Table, cells: Sequence[Cell], options: Sequence[str]) -> list[str]:
    """What was read, over how many seeds, where a row or column reads otherwise, from which code and at what cost."""
    base = table.common | table.forced
    return [
        f"{what(Reading(*(base[key] for key in CHOICES)))}. "
        f"Mean ± population standard deviation over {_seeds(cells)}; [n/m]: n of m seeds so far; —: none yet.",
        _other_readings(table, base),
        *explained(cells),
        *map(prose, legend(table, cells)),
        origin(table, cells),
        f"{_command('submit', table, options)} does the runs, {_writes(table, options)}",
    ]


def what(reading: Reading) -> str:
    """Which number it is, in words."""
    unit = "" if reading.metric in CASES else " in percent"
    return (
        f"{METRICS[reading.metric]} on {SPLITS[reading.split]}{unit}, by {NETWORKS[reading.network]}; "
        f"of each run {PROTOCOLS[reading.protocol]} (`{reading.protocol}`)"
    )


def of_one(cell: Cell) -> str:
    """The number of a single cell in two lines, for the terminal."""
    assert cell.reading
    seeds = ", ".join(map(str, cell.runs))
    return f"{cell.row}, seed {seeds}: {number(list(cell.values().values()), len(cell.runs))}\n{what(cell.reading)}"


def _other_readings(table: Table, base: dict) -> str:
    """A line for each row, column or cell that reads another number than the table as a whole."""
    levels = [(f"Row {in_markdown(name)}", level) for name, level in table.rows.items()]
    levels += [(f"Column {in_markdown(name)}", level) for name, level in table.columns.items()]
    levels += [
        (f"Row {in_markdown(name)}, column {in_markdown(column)}", single or {})
        for name, level in table.rows.items()
        for column, single in (level.get("cells") or {}).items()
    ]
    lines = []
    for name, level in levels:
        keys = [key for key in CHOICES if level.get(key, base[key]) != base[key] and key not in table.forced]
        if keys:
            lines.append(f"- {name} reads " + ", ".join(f"{key} `{level[key]}`" for key in keys) + ".")
    return "\n".join(lines)


def origin(table: Table, cells: Sequence[Cell]) -> str:
    """How many runs there are, what they cost, on which devices, and from which code."""
    known = cells[0].records
    runs = [use.run for use in Selection({table.name: list(cells)}).runs().values()]
    records = [record for run in runs if (record := known.of(run)) is not None]
    devices = sorted({str(record.get("provenance", {}).get("device", "unknown device")) for record in records})
    return (
        f"{len(records)} runs with their prerequisites, {_duration(records)} of computing on "
        f"{', '.join(map(in_markdown, devices)) or 'no device yet'}; code: {_code(records)}."
    )


def _writes(table: Table, options: Sequence[str]) -> str:
    protocol = ["--protocol", table.forced["protocol"]] if "protocol" in table.forced else []
    return f"{_command('aggregate', table, [*options, *protocol])} writes this."


def _command(script: str, table: Table, options: Sequence[str]) -> str:
    return in_code(shlex.join([*plainly(f"repro/{script}.py"), "--table", table.source, *options]))


def _seeds(cells: Iterable[Cell]) -> str:
    counts = sorted({len(cell.runs) for cell in cells if cell.runs})
    return " or ".join(map(str, counts)) + (" seed" if counts == [1] else " seeds")


def _duration(records: Iterable[dict]) -> str:
    minutes = round(sum(record.get("seconds", 0.0) for record in records) / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"


def _code(records: Iterable[dict]) -> str:
    """Commit and version of every record, so that a table of mixed code says so."""
    found = set()
    for record in records:
        origin = record.get("provenance", {})
        commit = in_markdown(str(origin["commit"])[:10]) if origin.get("commit") else "unknown commit"
        commit += " with changes" if origin.get("dirty") else ""
        packages = origin.get("packages")
        version = packages.get("seval") if isinstance(packages, dict) else None
        found.add(f"{commit} (seval {in_markdown(version)})" if version else commit)
    return ", ".join(sorted(found)) or "no record yet"


def latex(table: Table, cells: Sequence[Cell]) -> str:
    """A booktabs tabular, and what it assumes below it."""
    header, *rows = grid(table, cells, printable)
    text = bold(superscripts(tabulate(rows, header, "latex_booktabs", disable_numparse=True, colalign=_align(header))))
    marks = paragraph(map(in_latex, legend(table, cells)))
    return in_ascii(f"% {printable(_line(table.title))}\n{text}\n{marks}{Footnotes(table).latex()}")


def comma_separated(table: Table, cells: Iterable[Cell]) -> str:
    """A line for each cell, in percent; values and ids are in the order of the seeds that have a record."""
    text, notes = io.StringIO(), Footnotes(table)
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_CSV)
    for cell in cells:
        values = cell.values()
        mean, std = (f"{number:.4f}" for number in mean_std(values.values())) if values else ("", "")
        writer.writerow(
            [
                in_csv(cell.row),
                in_csv(cell.column),
                mean if table.kind == "results" else compared(table, cell)[0],
                std,
                len(values),
                len(cell.runs),
                " ".join(map(str, values)),
                " ".join(f"{value:.4f}" for value in values.values()),
                " ".join(cell.runs[seed].id for seed in values),
                *(cell.reading or [""] * len(CHOICES)),
                *("" if number is None else number for number in cell.reported or (None, None)),
                in_csv(": ".join(filter(None, [cell.mark, _line(table.marks.get(cell.mark, ""))]))),
                word(cell),
                in_csv(notes.reasons(cell.row, cell.column)),
            ]
        )
    return text.getvalue()
