"""The notebook is kept without outputs, in short cells, and runs to its end on the kernel that the docs install."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import resource
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.settings import ROOT

TOUR = ROOT / "notebooks" / "tour.ipynb"
INSTALL = "python -m ipykernel install --user --name=seval"
LONGEST = 24  # lines of a cell of code


def cells(notebook: Path, kind: str = "") -> list[dict]:
    """The cells of that type, or all; their source is one text."""
    found = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return [cell | {"source": "".join(cell["source"])} for cell in found if kind in ("", cell["cell_type"])]


def left_in(notebook: Path) -> list[str]:
    """What an execution has left in the file, and cells that are too long to read."""
    found = []
    for number, cell in enumerate(cells(notebook, "code"), 1):
        if cell["outputs"]:
            found.append(f"cell of code {number} has outputs: clear them and save")
        if cell["execution_count"] is not None:
            found.append(f"cell of code {number} has an execution count: clear all outputs and save")
        if (lines := len(cell["source"].splitlines())) > LONGEST:
            found.append(f"cell of code {number} has {lines} lines")
    return found


def test_the_tour_is_kept_without_outputs_and_for_the_kernel_of_the_docs():
    assert left_in(TOUR) == []
    content = json.loads(TOUR.read_text(encoding="utf-8"))
    assert content["metadata"]["kernelspec"]["name"] == "seval"
    ids = [cell["id"] for cell in content["cells"]]
    assert len(set(ids)) == len(ids)


def test_outputs_are_noticed(tmp_path):
    content = json.loads(TOUR.read_text(encoding="utf-8"))
    first, second = [cell for cell in content["cells"] if cell["cell_type"] == "code"][:2]
    first["outputs"], second["execution_count"] = [{"output_type": "stream", "name": "stdout", "text": "1"}], 2
    second["source"] = ["1\n"] * (LONGEST + 1)
    (tmp_path / "executed.ipynb").write_text(json.dumps(content), encoding="utf-8")
    assert [words.split(" has ")[0] for words in left_in(tmp_path / "executed.ipynb")] == [
        "cell of code 1",
        "cell of code 2",
        "cell of code 2",
    ]


def test_the_tour_says_how_to_open_it_and_its_links_exist():
    pages = [(ROOT / "docs" / "runs.md").read_text(encoding="utf-8"), cells(TOUR)[0]["source"]]
    assert all(INSTALL in page and "pip install -e '.[notebook]'" in page for page in pages)
    links = [link for cell in cells(TOUR, "markdown") for link in re.findall(r"\]\(([^)\s]+)\)", cell["source"])]
    assert links and not [link for link in links if not (TOUR.parent / link).exists()]


@pytest.fixture
def kernel(tmp_path, monkeypatch) -> str:
    """The kernel of the docs, installed by their command into a home of its own."""
    if missing := [name for name in ("ipykernel", "nbclient", "matplotlib") if not importlib.util.find_spec(name)]:
        pytest.skip(f"without the extra `notebook`: {', '.join(missing)}")
    for variable in ("JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR", "MPLCONFIGDIR"):
        monkeypatch.setenv(variable, str(tmp_path / variable.lower()))
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("SEVAL_DATA", str(ROOT / "data"))
    done = subprocess.run([sys.executable, *shlex.split(INSTALL)[1:]], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return "seval"


def executed(notebook: Path, kernel: str, runs: Path) -> list[Any]:
    """The cells of code after an execution from start to end, with runs in that folder. Raises where a cell fails."""
    import nbformat
    from nbclient import NotebookClient

    content = nbformat.read(notebook, as_version=4)
    for cell in content.cells:
        if "parameters" in cell.metadata.get("tags", ()):
            assert cell.source.startswith('RUNS = "runs"')
            cell.source = f"RUNS = {str(runs)!r}"
    folder = {"metadata": {"path": str(notebook.parent)}}  # where Jupyter and editors start a kernel
    NotebookClient(content, kernel_name=kernel, timeout=600, resources=folder).execute()
    return [cell for cell in content.cells if cell.cell_type == "code"]


def test_the_tour_runs_in_two_minutes_of_one_core(kernel, tmp_path):
    before = sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
    outputs = [output for cell in executed(TOUR, kernel, tmp_path / "runs") for output in cell.outputs]
    assert sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2]) - before < 120
    assert {output.get("name", "stdout") for output in outputs} == {"stdout"}  # no warnings
    shown = [output.data for output in outputs if "data" in output]
    assert sum("image/png" in data for data in shown) == 9
    table = shown[-1]["text/markdown"]
    rows = re.findall(r"^\| ([^|]+?) +\|.*[0-9]+\.[0-9]+ ± [0-9]+\.[0-9]+", table, re.M)
    assert rows == ["FixMatch", "FixMatch + post-hoc LA", "SEVAL-PL", "SEVAL"]
    assert len(list((tmp_path / "runs").glob("*/record.json"))) == 4
