"""Ids are a promise: every configuration and every table cell keeps the id, and so the record, that it has."""

from __future__ import annotations

import hashlib

import pytest

from repro.tables import table as tables
from seval import identity as runs
from seval.config import load, settings
from seval.defaults import CORRECTIONS
from seval.run import Run
from tests.settings import ROOT

#: A change of an id belongs into CHANGELOG.md, with the ids that it changes, and only then here.
CONFIGURATIONS = (194, "2b6ed95ba2ae0ffb9e0c8196da803c0bda0b8d3bfc3de796f19a6737bebc0140")
CELLS = (981, "a96f1de3bf027a5fcba1077f474bac52e1f14b04477e42cc93a28233787e9f4e")
#: Of methods and rows that came later, whose ids may still change before the release that brings them.
LATER_CONFIGURATIONS = (57, "01cbdb3183a1de6614710a55d1cd82b2eb2ef5c4c04dd0a514378b8766dc448b")
LATER_CELLS = (1087, "884d396022a64467c24174c49b71aeddef013e3abb182e5c061170319329726f")
LATER = {"debiaspl", "simpro", "adello", "cdmad", "cpe", "cpe_classwise", "sc_ssl", "tras", "cossl", "ccl"}
LATER_ROWS = ("DebiasPL", "SimPro", "ADELLO", "CDMAD", "CPE", "SC-SSL", "TRAS", "CoSSL", "CCL", "SEVAL + SimPro")
LATER_ROWS += ("SEVAL + CPE",)


def digest(ids: dict[str, str]) -> tuple[int, str]:
    lines = "".join(f"{name} {id}\n" for name, id in sorted(ids.items()))
    return len(ids), hashlib.sha256(lines.encode()).hexdigest()


def test_the_ids_of_all_configurations_are_as_ever():
    files = [*(ROOT / "configs").glob("*/*.yaml")]
    for later, pinned in ((False, CONFIGURATIONS), (True, LATER_CONFIGURATIONS)):
        some = [file for file in files if (file.stem in LATER) == later]
        assert digest({file.relative_to(ROOT).as_posix(): Run(load(file)).id for file in some}) == pinned


def test_the_ids_of_all_cells_and_their_chains_are_as_ever():
    older, later = {}, {}
    for file in tables.TABLES.glob("*.yaml"):
        for cell in tables.Table.read(file).cells():
            new = file.stem in ("newer", "evidence") or file.stem == "methods_demo" and cell.row.startswith(LATER_ROWS)
            for seed, last in cell.runs.items():
                chain = " ".join(run.id for run in last.chain())
                (later if new else older)[f"{file.stem}/{cell.row}/{cell.column}/{seed}"] = chain
    assert digest(older) == CELLS
    assert digest(later) == LATER_CELLS


def test_a_correction_moves_the_ids_of_the_runs_it_concerns_and_of_those_that_depend_on_them(monkeypatch):
    plain, concerned = (["HEADS.LINEAR.POLICY", text] for text in ("one_hot", "one_hot | crest"))
    phases = [concerned, [*plain, "PREREQUISITE", concerned], plain]
    before = [Run(load((), phase)).id for phase in phases]
    known = CORRECTIONS | {"crest: a test": lambda settings: "crest" in settings["HEADS.LINEAR.POLICY"]}
    monkeypatch.setattr(runs, "CORRECTIONS", known)
    after = [Run(load((), phase)).id for phase in phases]
    assert [a == b for a, b in zip(before, after, strict=True)] == [False, False, True]


POLICY, SET, HELD_OUT = "HEADS.LINEAR.POLICY", "DATASET.NAME", "DATASET.HELD_OUT"
TEN = ["DATASET.HELD_OUT_PER_CLASS", 10]
CONCERNED = [
    ("adsh: rank", [POLICY, "adsh(0.9) | one_hot"]),
    ("darp: period", [POLICY, "one_hot | darp"]),
    ("held out by number: first of a long tail", [HELD_OUT, "labeled", *TEN]),
    ("remixmatch: size of strong views", ["ALGORITHM.NAME", "remixmatch(ramp=0.4)", "DATASET.RESOLUTION", 32]),
    ("semi_aves: hold-out", [SET, "aves", HELD_OUT, "labeled", *TEN]),
    ("seval_threshold: equal accuracies", [POLICY, "seval_threshold(solver='exact')"]),
]
OWN = [SET, "birds", HELD_OUT, "labeled", *TEN]
UNCONCERNED = [
    OWN,
    [*OWN, "DATASET.OWN.NUM_LABELED_HEAD", 50],
    [POLICY, "darp_estimate"],
    [POLICY, "adsh_rectify"],
    [POLICY, "seval_refine(solver='exact') | seval_threshold"],
    [HELD_OUT, "labeled"],
    [HELD_OUT, "darp", *TEN],
    [SET, "aves", HELD_OUT, "darp", *TEN],
    [SET, "imagenet", HELD_OUT, "labeled", *TEN],
    ["ALGORITHM.NAME", "remixmatch"],
    ["ALGORITHM.NAME", "acr", "HEADS.BALANCED.LABELED_LOSS", "cross_entropy", "DATASET.RESOLUTION", 32],
]


def corrections(given: list) -> list[str]:
    return [name for name, concerns in CORRECTIONS.items() if concerns(settings(load((), given)))]


@pytest.mark.parametrize("name, given", CONCERNED)
def test_a_correction_concerns_the_settings_whose_results_it_changed(name, given):
    assert corrections(given) == [name]


def test_a_correction_concerns_no_other_settings():
    assert CORRECTIONS.keys() == dict(CONCERNED).keys()
    assert [given for given in UNCONCERNED if corrections(given)] == []
