"""Figures: the same bytes every time, readable on white and on dark, and nothing outside of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from matplotlib.colors import to_rgb

from repro.pages.classes import classes
from repro.pages.curves import curves
from repro.pages.document import drawings
from repro.pages.drawing import FEW, FORMATS, MANY, STYLE, Drawing, axes, inline, legend, names, save, shades, styled
from repro.pages.history import Group, groups
from repro.tables.table import Table


@pytest.fixture(scope="module")
def every(real: Table) -> list[Group]:
    cells = real.cells(["OUTPUT_DIR", str(real.path.parent / "runs")])
    return list(groups((real.name, cell) for cell in cells).values())


def luminance(color: object) -> float:
    """As the Web Content Accessibility Guidelines have it."""
    parts = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in to_rgb(color)]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), parts, strict=True))


def contrast(one: object, other: object) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def papers() -> list[str]:
    """White, and the backgrounds of the page."""
    return ["#ffffff", *re.findall(r"--paper: (#[0-9a-f]{6})", STYLE.with_name("page.css").read_text())]


def test_every_color_can_be_seen_on_white_and_on_dark() -> None:
    cycle = re.findall(r'"([0-9A-F]{6})"', STYLE.read_text())
    assert len(cycle) == 5
    for color in [*(f"#{each}" for each in cycle), *shades(9), MANY, FEW]:
        for paper in papers():
            assert contrast(color, paper) >= 2.9, (color, paper)


def test_text_of_the_page_has_contrast() -> None:
    css = STYLE.with_name("page.css").read_text()
    for scheme in re.findall(r":root \{([^}]*)\}", css)[:2]:
        colors = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", scheme))
        for name in ("ink", "soft", "link", "agrees", "differs", "few"):
            assert contrast(colors[name], colors["paper"]) >= 4.5, name
            assert contrast(colors[name], colors["shade"]) >= 4.5, name


def test_what_is_drawn_of_each_method(every: list[Group]) -> None:
    with styled():
        found = {group.rows[0]: [drawing.name for drawing in drawings(group)] for group in every}
    steps, by_class = ["accuracy", "few", "loss"], ["recall", "images"]
    assert found["Supervised"] == [*steps, *by_class]
    assert found["FixMatch"][:6] == [*steps, "kept", "pseudo-labels", "gain"]
    assert found["SEVAL"][-2:] == ["curriculum-pi", "curriculum-tau"]
    assert {group.title for group in every} >= {"FixMatch, FixMatch + LA · Fashion-MNIST-LT"}


def test_axes_are_labeled_with_units_and_nothing_leaves_the_figure(every: list[Group]) -> None:
    with styled():
        for group in every:
            for drawing in (*curves(group), *classes(group)):
                (ax,) = drawing.figure.axes
                unit = ax.get_ylabel()
                assert ax.get_xlabel() and (re.search(r"\[(%|1|nats)\]$", unit) or unit == "images")
                drawing.figure.savefig(Path("/dev/null"), format="svg")
                box, whole = drawing.figure.get_tightbbox(), drawing.figure.get_size_inches()
                name = f"{group.title}: {drawing.name}: {box}"
                assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= whole[0] and box.y1 <= whole[1], name


def test_an_inline_figure_is_the_same_every_time_and_has_ids_of_its_own(every: list[Group]) -> None:
    def drawn(prefix: str) -> list[str]:
        with styled():
            return [inline(drawing, prefix, "words") for group in every for drawing in drawings(group)]

    once = drawn("a-")
    assert once == drawn("a-") and len(once) > 15
    for svg in once:
        ids = re.findall(r'\bid="([^"]*)"', svg)
        used = re.findall(r'(?:url\(#|href="#)([^)"]*)', svg)
        assert len(ids) == len(set(ids)) and set(used) <= set(ids) and all(each.startswith("a-") for each in ids)
        assert svg.startswith("<svg viewBox=") and 'role="img" aria-label="words"' in svg and svg.endswith("</svg>")
        assert "currentColor" in svg and not re.search("#1f1e1d|#000000|#ffffff|<style|<metadata|http", svg)


def test_files_are_whole_and_the_same_every_time(tmp_path: Path) -> None:
    with styled():
        contents = []
        for folder in (tmp_path / "a", tmp_path / "b"):
            folder.mkdir()
            figure, ax = axes("step", "share [%]")
            ax.plot([1, 2, 3], [3, 1, 2], label="π")
            legend(ax)
            paths = save(Drawing("one", "", figure), folder)
            assert [path.name for path in paths] == [f"one.{kind}" for kind in FORMATS]
            contents.append([path.read_bytes() for path in paths])
    assert contents[0] == contents[1]
    pdf, svg, png = contents[0]
    assert pdf.startswith(b"%PDF") and b"<svg" in svg and png.startswith(b"\x89PNG")
    assert b"CreationDate" not in pdf and b"<dc:date>" not in svg


def test_names_of_files() -> None:
    assert names(["w/ SEVAL", "CIFAR10-LT n1=500", "../../x"]) == "w-seval-cifar10-lt-n1-500-x"
    assert names(["π"]) == "figure"
