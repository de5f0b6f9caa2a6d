"""Text from a YAML file or a record as part of a page: it looks as it was written, and does nothing."""

from __future__ import annotations

import re
from collections.abc import Iterable

from tabulate import LATEX_ESCAPE_RULES

from seval.text import printable

#: Signs of pages, as LaTeX has them.
SIGNS = {
    "±": r"$\pm$",
    "—": "---",
    "−": "$-$",
    "γ": r"$\gamma$",
    "η": r"$\eta$",
    "λ": r"$\lambda$",
    "π": r"$\pi$",
    "τ": r"$\tau$",
    "≠": r"$\neq$",
    "≈": r"$\approx$",
    "†": r"\dag{}",
    "‡": r"\ddag{}",
    "§": r"\S{}",
}
#: What begins a formula in a spreadsheet.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠")
#: In Markdown: HTML, links and what would be read as an escape; so that bare addresses are no links either.
_HTML = re.compile(r"<|&(?=#?\w+;)")
#: A fence would make code of all that follows, the table included.
_FENCE = re.compile(r"^\s*(?=```|~~~)")
_LINKS = re.compile(r"[\\\[\]]|:(?=//)|(?<=www)\.", re.IGNORECASE)


def in_markdown(text: object) -> str:
    """A name in Markdown, in one line: without HTML, links, code, and ends of a table's cell."""
    return re.sub(r"[|`]", r"\\\g<0>", prose(printable(str(text))))


def in_title(text: object) -> str:
    """A heading in Markdown, in one line."""
    return prose(printable(" ".join(str(text).split())))


def prose(text: str) -> str:
    """A text in Markdown of several lines, which may have emphasis and code but no HTML and no links."""
    lines = (printable(line) for line in text.splitlines())
    lines = (_LINKS.sub(r"\\\g<0>", _HTML.sub(_entity, line)) for line in lines)
    return "\n".join(_FENCE.sub(r"\g<0>\\", line) for line in lines)


def _entity(found: re.Match) -> str:
    return "&lt;" if found[0] == "<" else "&amp;"


def in_code(text: str) -> str:
    """Markdown code, fenced by more backticks than the text has in a row."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence, space = "`" * (longest + 1), " " * (longest > 0)
    return f"{fence}{space}{printable(text)}{space}{fence}"


def in_csv(text: object) -> str:
    """A cell of text in a spreadsheet, which is never a formula."""
    line = printable(str(text))
    return f"'{line}" if str(text).lstrip(" ").startswith(_FORMULA) else line


def in_latex(text: object) -> str:
    """Plain text for LaTeX."""
    return "".join(LATEX_ESCAPE_RULES.get(sign, sign) for sign in printable(str(text)))


def in_ascii(latex: str) -> str:
    """LaTeX with commands in place of the signs that pages have."""
    for sign, command in SIGNS.items():
        latex = latex.replace(sign, command)
    return latex


def paragraph(lines: Iterable[str]) -> str:
    """Small lines of LaTeX below a tabular; nothing for none."""
    lines = [*lines]
    return "\n".join(["", rf"\par\smallskip{{\footnotesize {lines[0]}", *lines[1:], "\\par}\n"]) if lines else ""


def superscripts(latex: str) -> str:
    """Footnote marks of a tabular, which tabulate has escaped, as superscripts: [^1][^2] becomes 1,2."""

    def together(marks: re.Match) -> str:
        return f"$^{{{','.join(re.findall(r'[0-9]+', marks[0]))}}}$"

    return re.sub(r"(?:\[\\\^\{\}[0-9]+\])+", together, latex)


def bold(latex: str) -> str:
    """Numbers marked as in Markdown, in bold where they are the best and underlined where they are second."""
    for stars, command in ((r"\*\*", "textbf"), (r"\*", "underline")):
        latex = re.sub(rf"(?<=& )( *){stars}([0-9][^*&]*){stars}", rf"\1\\{command}{{\2}}", latex)
    return latex


def signed(value: float) -> str:
    """Two digits, with the sign that text has."""
    return f"{value:+.2f}".replace("-", "−")
