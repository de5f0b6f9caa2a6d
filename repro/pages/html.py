"""Elements of a page as text. Whatever comes from a file is escaped; the functions here return HTML."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence

from seval.text import printable


def text(value: object) -> str:
    """Any text as HTML that looks the same and does nothing."""
    return html.escape(printable(str(value)))


def tag(name: str, /, *inner: str, **attributes: object) -> str:
    """An element around HTML. Attributes are escaped; `class_` is class; True has no value, False and None no place."""
    words = [name]
    for key, value in attributes.items():
        key = key.rstrip("_").replace("_", "-")
        if value is True:
            words.append(key)
        elif value is not None and value is not False:
            words.append(f'{key}="{text(value)}"')
    return f"<{' '.join(words)}>{''.join(inner)}</{name}>"


def prose(markdown: str) -> str:
    """A line of the tables' Markdown: bold, italics and code are shown, HTML and links are text."""
    plain = html.escape(html.unescape(printable(" ".join(markdown.split()))))
    parts = re.split(r"(?<!\\)(`+)(.+?)(?<!`)\1(?!`)", plain)  # text, fence, code, text, ...
    found = []
    for place in range(0, len(parts), 3):
        found.append(_emphasis(parts[place]))
        if place + 2 < len(parts):
            found.append(tag("code", parts[place + 2].strip()))
    return "".join(found)


def _emphasis(escaped: str) -> str:
    escaped = re.sub(r"(?<!\\)\*\*(\S|\S.*?\S)\*\*", r"<b>\1</b>", escaped)
    escaped = re.sub(r"(?<![\\\w*])\*([^\s*]|[^\s*].*?[^\s*])\*(?![\w*])", r"<em>\1</em>", escaped)
    return re.sub(r"\\([\\\[\]|`:.*])", r"\1", escaped)


def table(header: Sequence[str], rows: Iterable[Sequence[str]], sortable: bool = True, words: bool = False) -> str:
    """Cells of HTML in a box that scrolls sideways; to the left if they are `words`, else to the right."""
    head = tag("tr", *(tag("th", each, scope="col") for each in header))
    body = [tag("tr", *(tag("td", each) for each in row)) for row in rows]
    kind = "words" if words else None
    return scrolled(tag("table", tag("thead", head), tag("tbody", *body), data_sort=sortable, class_=kind))


def scrolled(table: str) -> str:
    """A wide element scrolls within the page, by keyboard too."""
    return tag("div", table, class_="scroll", tabindex=0)


def command(line: str) -> str:
    """A command to copy."""
    return tag("pre", tag("code", text(line)))


def folded(summary: str, *inner: str, **attributes: object) -> str:
    """What is shown when its summary is pressed."""
    return tag("details", tag("summary", summary), *inner, **attributes)


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Names and values, in HTML; those without a value are left out."""
    return tag("dl", *(tag("div", tag("dt", text(name)), tag("dd", value)) for name, value in pairs if value))
