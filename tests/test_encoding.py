"""Text is UTF-8 in every locale: whatever reads or writes it says so."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.settings import ROOT

FILES = [ROOT / "main.py", *sorted(ROOT.glob("seval/**/*.py")), *sorted(ROOT.glob("repro/**/*.py"))]
#: Their `open` knows no text, or is given bytes.
OTHER = ("os", "tarfile", "Image", "zipfile", "gzip")


def unsaid(text: str) -> Iterator[int]:
    """The lines where a file is opened, or a process is read, as text without an encoding."""
    for call in (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)):
        name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        of = ast.unparse(call.func.value) if isinstance(call.func, ast.Attribute) else ""
        keys = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        mode = keys.get("mode") or next((ast.unparse(each) for each in call.args[of == "" :]), "")
        reads_text = bool(of) and (name == "write_text" or name == "read_text" and not call.args)
        opens_text = name == "open" and of not in OTHER and "b'" not in mode and (of == "" or "'" in mode)
        process = keys.get("text") == "True" or keys.get("universal_newlines") == "True"
        if (reads_text or opens_text or process) and "encoding" not in keys:
            yield call.lineno


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("open(path)", [1]),
        ("open(path, 'w')", [1]),
        ("open(path, 'rb')", []),
        ("open(path, encoding='utf-8')", []),
        ("path.open('a')", [1]),
        ("path.open('ab')", []),
        ("raw.open()", []),
        ("os.open(path, flags)", []),
        ("path.read_text()", [1]),
        ("path.read_text('utf-8')", []),
        ("read_text(path)", []),
        ("path.write_text(text)", [1]),
        ("path.write_text(text, encoding='utf-8')", []),
        ("run(words, text=True)", [1]),
        ("run(words, text=True, encoding='utf-8')", []),
    ],
)
def test_what_counts_as_unsaid(text, lines):
    assert list(unsaid(text)) == lines


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(Path(file).relative_to(ROOT)))
def test_an_encoding_is_said_wherever_there_is_text(file):
    assert list(unsaid(file.read_text(encoding="utf-8"))) == []
