"""Text of files on a page: it looks as it was written, and does nothing."""

from __future__ import annotations

import pytest

from repro.pages.html import command, facts, prose, tag, text
from repro.tables.texts import in_code, in_markdown

NASTY = ["<script>alert(1)</script>", "a & b &amp; c", "x\x1b[31m\ny", "`code`", "[a](http://b)", "a|b", '" onload="x']


@pytest.mark.parametrize("given", NASTY)
def test_text_and_attributes_are_escaped(given: str) -> None:
    for found in (tag("p", text(given)), tag("p", title=given), command(given), facts([(given, "1")])):
        inside = found.split(">", 1)[1] if found.startswith("<p>") else found
        assert "<script" not in inside and "\x1b" not in inside and '" onload="' not in found


def test_tag() -> None:
    assert tag("a", "x", class_="b", data_value=0, open=True, title=None, hidden=False) == (
        '<a class="b" data-value="0" open>x</a>'
    )


def test_prose_is_the_markdown_of_the_tables() -> None:
    assert prose("**Bold** is *best*, `a_b`; p ≥ 0.05") == "<b>Bold</b> is <em>best</em>, <code>a_b</code>; p ≥ 0.05"
    assert prose("2 * 3 * 4 and π* of τ*") == "2 * 3 * 4 and π* of τ*"
    assert prose("no\nline") == "no line"
    assert prose("a ** b") == "a ** b"


@pytest.mark.parametrize("given", NASTY)
def test_what_is_escaped_for_markdown_looks_as_it_was(given: str) -> None:
    plain = prose(in_markdown(given))
    shown = text(" ".join(given.split()) if "\n" not in given else given)
    assert plain == shown
    assert "<script" not in prose(in_code(given)) and "<script" not in prose(given)
