"""What a table assumes, as numbered marks on its names and cells and a list of reasons below it."""

from __future__ import annotations

import re

from tabulate import LATEX_ESCAPE_RULES

from repro.tables.table import Table

HEADING = "Assumed where the paper leaves a choice:"


class Footnotes:
    """Every reason once, numbered in the order of reading: table, columns, then each row and its cells."""

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
        """The reasons, one a line."""
        lines = [f"[^{number}]: {reason}" for reason, number in self.numbers.items()]
        return "\n".join([HEADING, "", *lines]) if lines else ""

    def reasons(self, row: str, column: str) -> str:
        """All that bear on one cell, in one text."""
        places = ((None, None), (None, column), (row, None), (row, column))
        return " ".join(dict.fromkeys(reason for place in places for reason in self.table.assumed(*place)))

    def latex(self) -> str:
        """The reasons as a paragraph below the tabular."""
        lines = [f"$^{{{number}}}$~{escaped(reason)}" for reason, number in self.numbers.items()]
        above = ["", rf"\par\smallskip{{\footnotesize {HEADING}"]
        return "\n".join([*above, *lines, "\\par}\n"]) if lines else ""


def escaped(text: str) -> str:
    """Plain text for LaTeX."""
    return "".join(LATEX_ESCAPE_RULES.get(sign, sign) for sign in text)


def superscripts(latex: str) -> str:
    """Footnote marks of a tabular, which tabulate has escaped, as superscripts: [^1][^2] becomes 1,2."""

    def together(marks: re.Match) -> str:
        return f"$^{{{','.join(re.findall(r'[0-9]+', marks[0]))}}}$"

    return re.sub(r"(?:\[\\\^\{\}[0-9]+\])+", together, latex)
