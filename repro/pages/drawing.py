"""Figures as SVG within a page, and as files; the same bytes every time."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from seval.errors import ConfigError
from seval.files import replace

STYLE = Path(__file__).with_name("style.mplstyle")
FORMATS = {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": {"Software": None}}
MANY, FEW = (0.0, 0.447, 0.698), (0.835, 0.369, 0.0)  # the ends of the class colors, and a mixture between
_INK = re.compile("#1f1e1d", re.IGNORECASE)
_BOX = (0.185, 0.18, 0.79, 0.66)  # of the axes in the figure; the legend is above


class Drawing(NamedTuple):
    """A figure, the name of its file and what it shows in words."""

    name: str
    caption: str
    figure: Any


@contextmanager
def styled() -> Iterator[None]:
    """Inside, figures have the style of the report. Raises `ConfigError` without matplotlib."""
    try:
        from matplotlib import style
    except ImportError:
        raise ConfigError("figures need matplotlib; install it, or the extra: pip install -e '.[report]'") from None
    with style.context(STYLE):
        yield


def axes(xlabel: str, ylabel: str) -> tuple[Any, Any]:
    """A new figure and its axes, with room for a legend above."""
    from matplotlib.figure import Figure

    figure = Figure()
    ax = figure.add_axes(_BOX)
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    return figure, ax


def legend(ax: Any, **options: Any) -> None:
    """The names of what is drawn, above the axes, in two columns at most."""
    handles, labels = ax.get_legend_handles_labels()
    if labels:
        place = {"loc": "lower left", "bbox_to_anchor": (-0.12, 1.0), "borderaxespad": 0.2, "labelspacing": 0.25}
        ax.legend(handles, labels, ncols=min(2, len(labels)), **place, **options)


def shades(number: int) -> list[tuple[float, ...]]:
    """Colors of `number` classes, from the most frequent to the rarest."""
    parts = [place / max(number - 1, 1) for place in range(number)]
    return [tuple((1 - part) * a + part * b for a, b in zip(MANY, FEW, strict=True)) for part in parts]


def inline(drawing: Drawing, prefix: str, label: str) -> str:
    """The figure as an SVG element: its text has the page's color, and its ids begin with `prefix`.

    `label`, escaped already, is read to who cannot see it.
    """
    buffer = io.StringIO()
    drawing.figure.savefig(buffer, format="svg", metadata=FORMATS["svg"])
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    for part in (r"\s*<metadata>.*?</metadata>", r"<style .*?</style>", r"<!--.*?-->"):
        text = re.sub(part, "", text, flags=re.DOTALL)
    box = re.search(r'viewBox="[^"]*"', text)
    head = f'<svg {box[0] if box else ""} role="img" aria-label="{label}">'
    text = re.sub(r"^<svg[^>]*>", lambda _: head, text, count=1)
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{prefix}", text).replace("xlink:href", "href")
    text = re.sub(r' d="[^"]*"', lambda path: re.sub(r"(\.\d)\d+", r"\1", path[0]), _INK.sub("currentColor", text))
    return re.sub(r"\s*\n\s*", " ", text).strip()


def save(drawing: Drawing, folder: Path) -> list[Path]:
    """Write the figure as pdf, svg and png on white. Raises `OSError`."""
    paths = [folder / f"{drawing.name}.{kind}" for kind in FORMATS]
    for path, (kind, metadata) in zip(paths, FORMATS.items(), strict=True):
        buffer = io.BytesIO()
        drawing.figure.savefig(buffer, format=kind, metadata=metadata, facecolor="white")
        replace(path, buffer.getvalue())
    return paths


def names(words: Sequence[str]) -> str:
    """Words as the name of a file: small letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", " ".join(words).lower()).strip("-") or "figure"
