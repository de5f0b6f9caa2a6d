"""Rebuild a table from the records of its runs, beside the reported numbers, as Markdown, CSV and LaTeX."""

from __future__ import annotations

import argparse
import csv
import io
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the checkout at hand also works without installation

from repro.tables import settings as hyperparameters
from repro.tables import table as tables
from repro.tables.page import Footnotes, superscripts
from repro.tables.reading import CASES
from repro.tables.table import CHOICES, Cell, Table, mean_std
from seval.record import replace

EXAMPLES = """\
examples:
  python repro/aggregate.py --table demo                      writes paper_tables/demo.md, .csv and .tex
  python repro/aggregate.py --table demo --protocol mean20    another reading of the same records; retrains nothing
  python repro/aggregate.py --table demo --strict             exit code 1 while runs are missing
  python repro/aggregate.py --table 2                         table 2 of the paper: short for table2
"""
PROTOCOLS = {
    "last": "the last evaluation",
    "median20": "the median of the last 20 evaluations",
    "mean20": "the mean of the last 20 evaluations",
    "best_on_valid": "the evaluation that is best on the validation images",
    "best_on_test": "the evaluation that is best on the test images, which flatters: not comparable with the others",
}
METRICS = {
    "top1": "Top-1 accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "geometric_mean": "Geometric mean of the class recalls",
    "many": "Recall of the many-shot classes",
    "medium": "Recall of the medium-shot classes",
    "few": "Recall of the few-shot classes",
}
METRICS |= dict.fromkeys(CASES, "Number of classes")
SPLITS = {"test": "the test images", "valid": "the validation images"}
SIGNS = {
    "±": r"$\pm$",
    "—": "---",
    "−": "$-$",
    "γ": r"$\gamma$",
    "η": r"$\eta$",
    "π": r"$\pi$",
    "τ": r"$\tau$",
    "≠": r"$\neq$",
}
NETWORKS = {"ema": "the averaged network", "raw": "the network without averaging"}


def number(values: Sequence[float], wanted: int) -> str:
    """`82.80 ± 0.56`, with `[2/3]` behind it where seeds are missing; `—` for none."""
    if not values:
        return "—"
    mean, std = mean_std(values)
    return (
        f"{mean:.2f}"
        + (f" ± {std:.2f}" if len(values) > 1 else "")
        + (f" [{len(values)}/{wanted}]" if len(values) < wanted else "")
    )


def grid(table: Table, cells: Sequence[Cell]) -> list[list[str]]:
    """The header, then the rows, as text; a column with reported numbers is followed by them and by the difference.

    Where the table is of settings, by the reported ones only. Names and numbers carry the marks of what they assume.
    """
    notes, compared = Footnotes(table), {cell.column for cell in cells if cell.reported}
    beside = {"results": ["reported", "ours − reported"], "settings": ["reported"]}[table.kind]
    write = {"results": result, "settings": lambda cell: hyperparameters.texts(table, cell)}[table.kind]
    header, rows = [notes.marked("Method" if table.kind == "results" else "Setting")], {}
    for column in table.columns:
        header += [notes.marked(column, column=column), *(beside if column in compared else [])]
    for cell in cells:
        first, *others = write(cell)
        row = rows.setdefault(cell.row, [notes.marked(cell.row, cell.row)])
        row += [notes.marked(first, cell.row, cell.column), *(others if cell.column in compared else [])]
    return [header, *rows.values()]


def result(cell: Cell) -> list[str]:
    """The mean of its runs, the reported one and the difference."""
    values = list(cell.values().values())
    mean, std = cell.reported or (None, None)
    return [
        number(values, len(cell.runs)) if cell.runs else "",
        "" if mean is None else f"{mean} ± {std:.2f}" if std is not None else f"{mean}",
        f"{mean_std(values)[0] - mean:+.2f}".replace("-", "−") if values and mean is not None else "",
    ]


def markdown(table: Table, cells: Sequence[Cell]) -> str:
    """The whole page: title, note, table, and what one has to know to read it."""
    header, *rows = ([text.replace("|", "\\|") for text in line] for line in grid(table, cells))
    body = tabulate(rows, header, "pipe", disable_numparse=True, colalign=_align(header))
    below = footer(table, cells) if table.kind == "results" else [_writes(table)]
    return "\n\n".join(filter(None, [f"# {table.title}", table.note, body, *below, Footnotes(table).markdown()])) + "\n"


def _align(header: Sequence[str]) -> tuple[str, ...]:
    return ("left", *["right"] * (len(header) - 1))


def footer(table: Table, cells: Sequence[Cell]) -> list[str]:
    """What was read, over how many seeds, where it departs from that, from which code and at what cost."""
    base = table.common | table.forced
    unit = "" if base["metric"] in CASES else " in percent"
    lines = [
        f"{METRICS[base['metric']]} on {SPLITS[base['split']]}{unit}, by {NETWORKS[base['network']]}; "
        f"of each run {PROTOCOLS[base['protocol']]} (`{base['protocol']}`). "
        f"Mean ± population standard deviation over {_seeds(cells)}; [n/m]: n of m seeds so far; —: none yet."
    ]
    levels = [(f"Row {name}", level) for name, level in table.rows.items()]
    levels += [(f"Column {name}", level) for name, level in table.columns.items()]
    levels += [
        (f"Row {name}, column {column}", single or {})
        for name, level in table.rows.items()
        for column, single in (level.get("cells") or {}).items()
    ]
    departures = [
        (
            name,
            {key: level[key] for key in CHOICES if level.get(key, base[key]) != base[key] and key not in table.forced},
        )
        for name, level in levels
    ]
    lines.append(
        "\n".join(
            f"- {name} reads " + ", ".join(f"{key} `{value}`" for key, value in other.items()) + "."
            for name, other in departures
            if other
        )
    )
    records = {
        run.id: record
        for cell in cells
        for last in cell.runs.values()
        for run in last.chain()
        if (record := run.record()) is not None
    }
    devices = sorted({record.get("provenance", {}).get("device", "unknown device") for record in records.values()})
    lines.append(
        f"{len(records)} runs with their prerequisites, {_duration(records.values())} of computing on "
        f"{', '.join(devices) or 'no device yet'}; code: {_code(records.values())}."
    )
    lines.append(f"`python repro/submit.py --table {table.name}` does the runs, {_writes(table)}")
    return lines


def _writes(table: Table) -> str:
    return f"`python repro/aggregate.py --table {table.name}` writes this."


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
        commit = (origin["commit"][:10] if origin.get("commit") else "unknown commit") + (
            " with changes" if origin.get("dirty") else ""
        )
        version = origin.get("packages", {}).get("seval")
        found.add(f"{commit} (seval {version})" if version else commit)
    return ", ".join(sorted(found)) or "no record yet"


def latex(table: Table, cells: Sequence[Cell]) -> str:
    """A booktabs tabular, and what it assumes below it."""
    header, *rows = grid(table, cells)
    text = superscripts(tabulate(rows, header, "latex_booktabs", disable_numparse=True, colalign=_align(header)))
    text = f"% {' '.join(table.title.split())}\n{text}\n{Footnotes(table).latex()}"
    for sign, command in SIGNS.items():
        text = text.replace(sign, command)
    return text


def comma_separated(table: Table, cells: Iterable[Cell]) -> str:
    """One line a cell, in percent; values and ids are in the order of the seeds they are there for."""
    text, notes = io.StringIO(), Footnotes(table)
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        [
            "row",
            "column",
            "mean",
            "std",
            "n",
            "seeds_wanted",
            "seeds",
            "values",
            "ids",
            *CHOICES,
            "reported_mean",
            "reported_std",
            "assumed",
        ]
    )
    for cell in cells:
        values = cell.values()
        mean, std = (f"{number:.4f}" for number in mean_std(values.values())) if values else ("", "")
        if table.kind == "settings":
            mean = hyperparameters.texts(table, cell)[0]
        reported = ["" if number is None else number for number in cell.reported or (None, None)]
        writer.writerow(
            [
                cell.row,
                cell.column,
                mean,
                std,
                len(values),
                len(cell.runs),
                " ".join(map(str, values)),
                " ".join(f"{value:.4f}" for value in values.values()),
                " ".join(cell.runs[seed].id for seed in values),
                *(cell.path or [""] * len(CHOICES)),
                *reported,
                notes.reasons(cell.row, cell.column),
            ]
        )
    return text.getvalue()


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; `ConfigError` where it is wrong."""
    parser = tables.Parser(description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--table",
        required=True,
        help="name of a file in paper_tables/ (2 is short for table2), or a path ending in .yaml",
    )
    parser.add_argument("--output-dir", default="runs", help="folder of the runs' folders (default: runs)")
    parser.add_argument("--protocol", choices=CHOICES["protocol"], help="read this protocol instead of the table's")
    parser.add_argument("--out", default=tables.TABLES, type=Path, help="folder to write to (default: paper_tables)")
    parser.add_argument("--strict", action="store_true", help="exit code 1 if a cell is short of seeds")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """0; 1 where --strict finds a cell short of seeds; 2: bad input."""
    try:
        args = parse(argv)
        table = tables.find(args.table).forcing(protocol=args.protocol)
        cells = list(table.cells(["OUTPUT_DIR", args.output_dir]))
        page = markdown(table, cells)
        args.out.mkdir(parents=True, exist_ok=True)
        for suffix, text in ((".md", page), (".csv", comma_separated(table, cells)), (".tex", latex(table, cells))):
            replace(args.out / f"{table.name}{suffix}", text.encode())
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{page}\n{args.out / table.name}.md, .csv, .tex")
    short = sum(len(cell.values()) < len(cell.runs) for cell in cells)
    if short:
        print(
            f"{short} of {len(cells)} cells are short of seeds; python repro/submit.py --table {args.table} "
            "does what is missing",
            file=sys.stderr,
        )
    return 1 if short and args.strict else 0


if __name__ == "__main__":
    sys.exit(main())
