"""Imports go down only, also those inside functions: rooms never import one another in a circle."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter

import pytest

from tests.settings import ROOT

#: From the highest floor down. A module imports from its own room and from lower floors, never from one beside it.
FLOORS = (
    ("seval.__main__",),  # it calls the scripts by their names
    ("main", "commands"),
    ("repro.listing",),
    ("repro.launch", "repro.pages"),
    ("repro.tables",),
    ("seval.command",),
    ("seval.using",),
    ("seval.export",),
    ("seval.predict", "seval.card"),
    ("seval.inference",),
    ("seval.run",),
    ("seval.train",),
    ("seval.evaluate", "seval.identity"),
    ("seval.build", "seval.config"),
    ("seval.checks",),
    ("seval.algorithms",),
    ("seval.policy",),
    ("seval.models", "seval.losses"),
    ("seval.data", "seval.recipes", "seval.record", "seval.claim", "seval.curves", "seval.progress", "seval.ids"),
    ("seval.files", "seval.keys", "seval.provenance"),
    ("seval.text", "seval.options"),
    (
        "seval.errors",
        "seval.defaults",
        "seval.lazy",
        "seval.memory",
        "seval.metrics",
        "seval.places",
        "seval.signals",
        "seval.versions",
    ),
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
FILES = {
    ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file
    for file in [ROOT / "main.py", *ROOT.glob("seval/**/*.py"), *ROOT.glob("repro/**/*.py")]
}


def room(module: str) -> str:
    """The room of a module: its package below the top, or the file itself."""
    top, _, rest = module.partition(".")
    if top == "repro" and module not in ("repro.launch", "repro.listing", "repro.tables") and "." not in rest:
        return "commands"
    return f"{top}.{rest.partition('.')[0]}".rstrip(".")


def imported(module: str) -> Iterator[tuple[str, int]]:
    """The modules of this repository that a module imports anywhere in its text, with the line."""
    for node in ast.walk(ast.parse(FILES[module].read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            while name and name not in FILES:
                name = name.rpartition(".")[0]
            if name and name not in ("seval", "repro"):
                yield name, node.lineno


@pytest.mark.parametrize("module", sorted(set(FILES) - {"seval", "repro"}))
def test_a_module_imports_its_own_room_and_lower_floors(module):
    own = room(module)
    for name, line in imported(module):
        below = FLOOR[room(name)] > FLOOR[own]
        assert room(name) == own or below, f"{module}, line {line}, imports {name}"


def test_no_modules_import_each_other_in_a_circle():
    graph = {module: {name for name, _ in imported(module)} for module in FILES}
    order = list(TopologicalSorter(graph).static_order())  # raises CycleError
    assert len(order) == len(FILES)
