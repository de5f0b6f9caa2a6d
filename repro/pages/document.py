"""The whole report: one file that needs no other, and no network."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from repro.pages import html, results, runs
from repro.pages.classes import CURRICULUM, classes
from repro.pages.curves import curves
from repro.pages.drawing import Drawing, inline, names, save, styled
from repro.pages.history import Group, groups
from repro.pages.html import tag, text
from repro.tables.reading import Records
from repro.tables.selection import Selection
from repro.tables.table import Cell, Table

_HERE = Path(__file__).parent
_HEAD = """\
<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">\
<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,"><title>Report</title>"""


class Report:
    """Tables with their cells, and what the runs of these cells have left on disk."""

    def __init__(self, tables: Sequence[Table], args: Namespace) -> None:
        self.args = args
        output = "runs" if args.output_dir is None else args.output_dir
        self.records = Records()  # each is read once, for all tables
        self.tables: dict[str, tuple[Table, list[Cell]]] = {}
        for table in tables:
            cells = table.cells(["OUTPUT_DIR", output])
            self.tables[table.name] = (table, [replace(cell, records=self.records) for cell in cells])
        self.groups = groups((name, cell) for name, (_, cells) in self.tables.items() for cell in cells)
        self.uses = Selection({name: cells for name, (_, cells) in self.tables.items()}, Path(output)).runs()

    @property
    def damaged(self) -> dict[str, str]:
        """By id, a line about each damaged file."""
        return {id: f"{self.uses[id].label}: {words}" for id, words in self.records.damaged.items()}

    def html(self, out: Path) -> str:
        """The page, to be written into the folder `out`."""
        with styled():
            charts = [self._charts(number, group) for number, group in enumerate(self.groups.values())]
        done = [record for use in self.uses.values() if (record := self.records.of(use.run))]
        parts = [results.section(table, cells, self._anchor, self.args) for table, cells in self.tables.values()]
        body = [
            tag("h1", "Report"),
            tag("p", f"{len(done)} of {len(self.uses)} runs are recorded."),
            results.overview(self.tables),
            *parts,
            tag("section", tag("h2", "Curves"), *charts, id="curves") if charts else "",
            runs.splits(done),
            runs.provenance(done),
            runs.cards(self.uses.values(), self.records, out),
        ]
        return self._page(tag("main", *body))

    def _page(self, main: str) -> str:
        links = [(f"table-{name}", table.title.partition(":")[0]) for name, (table, _) in self.tables.items()]
        links += [("curves", "Curves")] if self.groups else []
        links += [("splits", "Splits"), ("provenance", "Provenance"), ("runs", "Runs")]
        nav = tag("nav", *(tag("a", text(words), href=f"#{place}") for place, words in links), aria_label="Parts")
        style, script = ((_HERE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
        head = tag("head", _HEAD, tag("style", style))
        return f"<!DOCTYPE html>\n{tag('html', head, tag('body', nav, main, tag('script', script)), lang='en')}\n"

    def _anchor(self, cell: Cell) -> str | None:
        group = self.groups.get(tuple(run.id for run in cell.runs.values()))
        return f"group-{group.key}" if group else None

    def _charts(self, number: int, group: Group) -> str:
        """The figures of a group, folded but for the first."""
        figures, pairs = [], []
        for place, drawing in enumerate(drawings(group)):
            caption = text(drawing.caption)
            figure = tag("figure", inline(drawing, f"g{number}f{place}-", caption), tag("figcaption", caption))
            (pairs if drawing.name.startswith(CURRICULUM) else figures).append(figure)
        seeds = ", ".join(map(str, group.lines or group.done))
        title = f"{text(group.title)} {tag('span', f'seed {seeds}', class_='state')}"
        cards = ", ".join(tag("a", f"seed {seed}", href=f"#run-{run.id}") for seed, run in group.runs.items())
        inner = [tag("p", f"Runs: {cards}", class_="small"), tag("div", *figures, class_="figures")]
        inner += [tag("div", *pairs, class_="figures pairs")] if pairs else []
        return html.folded(title, *inner, id=f"group-{group.key}", open=number == 0)

    def save(self, folder: Path) -> list[Path]:
        """Write every figure as pdf, svg and png. Raises `OSError`."""
        folder.mkdir(parents=True, exist_ok=True)
        paths = []
        with styled():
            for group in self.groups.values():
                first = names([group.rows[0], group.column, group.key])
                for drawing in drawings(group):
                    paths += save(drawing._replace(name=f"{first}-{drawing.name}"), folder)
        return paths


def drawings(group: Group) -> Iterator[Drawing]:
    """Every figure of a group, one at a time."""
    yield from curves(group)
    yield from classes(group)
