"""A table's file is right, or one line says what is wrong: every field has its type checked."""

from __future__ import annotations

import copy
import random
import re
import time
from pathlib import Path

import pytest
import yaml

from repro import aggregate
from repro.tables import table as tables
from repro.tables.page import comma_separated, latex, markdown
from seval.errors import ConfigError
from tests.tables.conftest import TABLE, write_sweep

WRONG = [None, True, 3, -1, 0.5, "", " ", "a", "a\nb", "../x", "\x00", [], {}, [1], [[]], ["a", 3], {"a": "b"}]
WRONG += [{"a": {"a": None}}, [{"a": 1}], 10**17, "x" * 10_000, [["a"] * 3] * 3, "2024-01-01", "[MEMO, 3]"]


def attempt(path: Path) -> str:
    """What is wrong with a table's file; "" if it makes a page. Any other error than a `ConfigError` is a failure."""
    try:
        table = tables.find_table(str(path))
        cells = list(table.cells())
        assert markdown(table, cells) and comma_separated(table, cells) and latex(table, cells)
        return ""
    except ConfigError as error:
        assert "\n" not in str(error) and len(str(error)) < 2000, str(error)[:3000]
        return str(error)


@pytest.mark.parametrize("key", ["title", "note", "kind", "folder", "config", "set", "seeds", "metric", "protocol"])
@pytest.mark.parametrize("value", WRONG, ids=lambda value: str(value)[:20].encode("unicode_escape").decode())
def test_a_field_of_a_wrong_type_is_named(folder: Path, key: str, value: object) -> None:
    content = yaml.safe_load(TABLE) | {key: value}
    path = folder / "t.yaml"
    path.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    text = isinstance(value, str) and value.strip()
    fine = key in ("title", "note") and text or (key, value) in (("set", []), ("seeds", [1]))
    fine = fine or key == "config" and text and value.isprintable() and len(value) < 200  # every row has its own
    said = attempt(path)
    assert bool(said) != bool(fine), said
    assert fine or key in said or "no configuration file" in said or "unknown key" in said, said


def places(node: object, path: tuple = ()) -> list[tuple]:
    """The paths of all values in a structure."""
    inner = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [path, *(place for key, value in inner for place in places(value, (*path, key)))]


@pytest.mark.parametrize("seed", range(150))
def test_no_table_ends_in_another_error(folder: Path, seed: int) -> None:
    """Values and names of a sound table replaced, repeated, removed, at random places."""
    draw = random.Random(seed)
    write_sweep()
    content = yaml.safe_load(TABLE.replace("note:", "assumed: [a, b]\nnote:"))
    for _ in range(draw.randint(1, 3)):
        *above, last = draw.choice([place for place in places(content) if place])
        node = content
        for key in above:
            node = node[key]
        what = draw.random()
        if what < 0.7:
            node[last] = copy.deepcopy(draw.choice(WRONG))
        elif what < 0.85 and isinstance(node, dict):
            node[draw.choice(["set", "cells", "Plain", "γ=100", "_BASE_", "", "3"])] = node.pop(last)
        else:
            node.pop(last)
    path = folder / "t.yaml"
    path.write_text(yaml.safe_dump(content, allow_unicode=True, sort_keys=False), encoding="utf-8")
    attempt(path)


@pytest.mark.parametrize("seed", range(150))
def test_no_text_ends_in_another_error(folder: Path, seed: int) -> None:
    """Pieces of a sound table's text cut out, repeated, or replaced by signs that mean something to YAML."""
    draw = random.Random(seed)
    text = TABLE
    for _ in range(draw.randint(1, 4)):
        at = draw.randrange(len(text))
        end = at + draw.randint(0, 10)
        piece = draw.choice(
            ["", text[at:end] * 2, *"[]{}:,-&*!|>'\"%@`#?~\t\n\\0", "&a ", "*a", "? ", "<<: *a", "é", "\x07"]
        )
        text = text[:at] + piece + text[end:]
    path = folder / "t.yaml"
    path.write_text(text, encoding="utf-8")
    attempt(path)


@pytest.mark.parametrize(
    "text, message",
    [
        ("{reported: 3, columns: {c: }, rows: {r: }}", "reported in .* must be a mapping, but is 3"),
        ("{reported: {r: {c: [1" + "0" * 400 + "]}}, columns: {c: }, rows: {r: }}", "at most 18 digits"),
        ("{reported: {r: {c: 1.0e+999}}, columns: {c: }, rows: {r: }}", r"must be \[mean, std\], but is inf"),
        ("{reported: {r: {c: true}}, columns: {c: }, rows: {r: }}", r"must be \[mean, std\], but is True"),
        ("{columns: {c: }, rows: {r: }, set: [[MEMO], 3]}", "set in .* KEY VALUE pairs"),
        ("{columns: {c: }, rows: {r: {cells: {c: {cells: {}}}}}}", "unknown key in cell 'c' in row 'r'.*: 'cells'"),
        ("{columns: {c: }, rows: {r: }, seeds: &a [*a]}", "line 1.* contains itself"),
        ("{columns: {c: }, rows: {r: }, seeds: [01]}", "line 1.*has another meaning in YAML; write it in quotes"),
        ("{columns: {c: }, rows: {r: }, title: 3}", "title in .* must be text, but is 3; write it in quotes"),
        ("{columns: {c: }, rows: {[1]: }}", "a name must be text"),
        ("[" * 100_000, "nested too deeply"),
        ("- a", "must be a mapping, but is \\['a'\\]"),
        ("", "must have rows and columns"),
    ],
)
def test_the_message_says_what_would_be_right(folder: Path, text: str, message: str) -> None:
    (folder / "t.yaml").write_text(text, encoding="utf-8")
    assert re.search(message, attempt(folder / "t.yaml"))


def test_files_that_share_a_base_read_it_once(folder: Path) -> None:
    """24 levels, each laid over two copies of the next: 2 ** 24 readings, if each were read again."""
    (folder / "b0.yaml").write_text("{set: [MEMO, a], folder: small, config: plain}", encoding="utf-8")
    for level in range(1, 15):
        for name in (f"b{level}", f"c{level}"):
            base = f"b{level - 1}.yaml" if level == 1 else f"b{level - 1}.yaml, c{level - 1}.yaml"
            (folder / f"{name}.yaml").write_text(f"_BASE_: [{base}]", encoding="utf-8")
    (folder / "t.yaml").write_text("{_BASE_: [b14.yaml, c14.yaml], columns: {c: }, rows: {r: }}", encoding="utf-8")
    begun = time.monotonic()
    assert tables.find_table(str(folder / "t.yaml")).common["set"] == ["MEMO", "a"]
    assert time.monotonic() - begun < 5
    for level in range(1, 40):
        (folder / f"d{level}.yaml").write_text(f"_BASE_: d{level - 1}.yaml", encoding="utf-8")
    assert "too deep" in attempt(folder / "d39.yaml")
    (folder / "e1.yaml").write_text("_BASE_: [e2.yaml]", encoding="utf-8")
    (folder / "e2.yaml").write_text("_BASE_: [b0.yaml, e1.yaml]", encoding="utf-8")
    assert "includes itself" in attempt(folder / "e1.yaml")


def test_a_file_that_is_none_is_one_line(folder: Path, capsys: pytest.CaptureFixture) -> None:
    import os

    (folder / "t.yaml").write_bytes(b"title: \xff")
    assert "not text in UTF-8" in attempt(folder / "t.yaml")
    os.mkfifo(folder / "pipe.yaml")
    (folder / "folder.yaml").mkdir()
    (folder / "t.yaml").write_text("{_BASE_: pipe.yaml, columns: {c: }, rows: {r: }}", encoding="utf-8")
    assert "cannot read" in attempt(folder / "t.yaml")
    for name in ("pipe.yaml", "folder.yaml", "gone.yaml", "x" * 300 + ".yaml", "pipe.yaml/a.yaml"):
        assert aggregate.main(["--table", name]) == 2
        out, err = capsys.readouterr()
        assert not out and err.startswith("error: ") and err.count("\n") == 1
