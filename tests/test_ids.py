"""Ids are a promise: every configuration and every table cell keeps the id, and so the record, that it has."""

from __future__ import annotations

import hashlib

from repro.tables import table as tables
from seval import run as runs
from seval.config import load
from seval.defaults import CORRECTIONS
from seval.run import Run
from tests.settings import ROOT

#: A change of an id belongs into CHANGELOG.md, with the ids that it changes, and only then here.
CONFIGURATIONS = (185, "44815a9153284412e4e73925f38381b9f80800d0010306aff6023045705329bb")
CELLS = (981, "a96f1de3bf027a5fcba1077f474bac52e1f14b04477e42cc93a28233787e9f4e")


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


def test_a_correction_moves_the_ids_of_the_runs_it_concerns_and_of_those_that_depend_on_them(monkeypatch):
    plain, concerned = (["HEADS.LINEAR.POLICY", text] for text in ("one_hot", "one_hot | crest"))
    phases = [concerned, [*plain, "PREREQUISITE", concerned], plain]
    before = [Run(load((), phase)).id for phase in phases]
    known = CORRECTIONS | {"crest: a test": lambda settings: "crest" in settings["HEADS.LINEAR.POLICY"]}
    monkeypatch.setattr(runs, "CORRECTIONS", known)
    after = [Run(load((), phase)).id for phase in phases]
    assert [a == b for a, b in zip(before, after, strict=True)] == [False, False, True]
