"""What keeps the project small: a method is a rule and a few lines of YAML, and a combination of methods is no file."""

from __future__ import annotations

import ast
import io
import tokenize
from pathlib import Path

import pytest

from seval.config import load
from tests.settings import ROOT

METHODS = {file.stem for file in (ROOT / "configs" / "methods").glob("*.yaml")}
#: The published names of SEVAL's three modes; a suffix is a setting of Table 10.
SEVAL = ("fixmatch_seval", "fixmatch_seval_estim", "fixmatch_seval_load")
LAYOUT = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


def test_no_configuration_is_named_after_a_combination_of_methods():
    for file in (ROOT / "configs").glob("*/*.yaml"):
        name = file.stem.removesuffix("_all").removesuffix("_n50").removesuffix("_n150")
        assert name in METHODS or name in (*SEVAL, "dataset"), file
    modules = {file.stem for file in (ROOT / "seval").rglob("*.py")}
    assert not [name for name in modules if sum(part in METHODS for part in name.split("_")) > 1]


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_says_what_it_is_and_is_in_the_table_of_methods(name):
    cfg = load(ROOT / "configs" / "methods" / f"{name}.yaml")
    assert cfg.METHOD.SOURCE and set(cfg.METHOD.CATEGORY.split(" + ")) <= {"SSL", "LTL", "PLR", "THA"}
    assert f"| `{name}`" in (ROOT / "docs" / "methods.md").read_text()


#: Modules of seval/ that no training needs: the command line, and what is done with a trained network.
BESIDE = {"__main__", "card", "command", "export", "inference", "options", "pictures", "predict", "using"}


def test_the_training_core_stays_small():
    """Lines of code, less blanks, comments and docstrings, without what reads foreign formats.

    The bound has room for own data sets, SciPy's simplex at many times its speed, a step without waits for a GPU, and
    900 lines for the nine methods that came after SEVAL.
    """
    files = [file for file in (ROOT / "seval").rglob("*.py") if file.parent.name != "sources"]
    counts = {file: code_lines(file) for file in files if file.stem not in BESIDE}
    assert {file.stem for file in files} >= BESIDE
    assert 2000 < sum(counts.values()) < 6420


def test_no_module_is_long():
    folders = ("seval", "repro", "tests", "benchmarks", "examples")
    files = [ROOT / "main.py", *(file for folder in folders for file in (ROOT / folder).rglob("*.py"))]
    lines = {file.relative_to(ROOT).as_posix(): len(file.read_text().splitlines()) for file in files}
    assert {name: number for name, number in lines.items() if number >= 280} == {}


def code_lines(file: Path) -> int:
    text = file.read_text()
    code = {
        line
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type not in LAYOUT
        for line in range(token.start[0], token.end[0] + 1)
    }
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node) is not None:
            code -= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return len(code)
