"""Ids are a promise: every configuration and every table cell keeps the id, and so the record, that it has."""

from __future__ import annotations

import hashlib

from repro.tables import table as tables
from seval.config import load
from seval.run import Run
from tests.settings import ROOT

#: A change of an id belongs into CHANGELOG.md, with the ids that it changes, and only then here.
CONFIGURATIONS = (185, "9e7fb38024c216c7864b9a95711e312606abdf819e743fd4789368fabc402bcf")
CELLS = (981, "9e8ec4a25d185a293ab3aeb4b282079713bf49cfea1271dc785a808ebedd6f5b")


def digest(ids: dict[str, str]) -> tuple[int, str]:
    lines = "".join(f"{name} {id}\n" for name, id in sorted(ids.items()))
    return len(ids), hashlib.sha256(lines.encode()).hexdigest()


def test_the_ids_of_all_configurations_are_as_ever():
    files = (ROOT / "configs").glob("*/*.yaml")
    assert digest({file.relative_to(ROOT).as_posix(): Run(load(file)).id for file in files}) == CONFIGURATIONS


def test_the_ids_of_all_cells_and_their_chains_are_as_ever():
    ids = {}
    for file in tables.TABLES.glob("*.yaml"):
        for cell in tables.Table.read(file).cells():
            for seed, last in cell.runs.items():
                chain = " ".join(run.id for run in last.chain())
                ids[f"{file.stem}/{cell.row}/{cell.column}/{seed}"] = chain
    assert digest(ids) == CELLS
