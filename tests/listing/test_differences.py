"""What differs among runs: as few settings as tell apart what all settings tell apart."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from repro.listing.differences import OF_METHOD, differing, few, shortest, words
from repro.listing.found import Found
from seval.config import read_file
from tests.settings import ROOT


def run(method: str = "fixmatch", dataset: str = "tiny", seed: int = 0, **settings: object) -> Found:
    given = {"DATASET.NAME": dataset, "SEED": seed, **settings}
    return Found("0123456789", Path("x"), said=method, delta=given)


LR, STEPS, POLICY, HEAD = "SOLVER.BASE_LR", "SOLVER.MAX_ITER", "HEADS.LINEAR.POLICY", "DATASET.TINY.NUM_LABELED_HEAD"


def told(runs: list[Found]) -> list[str]:
    keys = few(runs)
    return [words(each, keys) for each in runs]


def test_what_is_alike_is_not_shown():
    assert told([run(), run(seed=1), run("mixmatch")]) == ["", "", ""]
    assert told([run(**{LR: 0.1}), run(**{LR: 0.1}, seed=1)]) == ["", ""]
    assert told([]) == [] and told([run()]) == [""]


def test_one_of_several_settings_that_change_together_is_enough():
    runs = [run(**{LR: 0.1, STEPS: 10}), run(**{LR: 0.2, STEPS: 20}), run(**{LR: 0.1, STEPS: 10}, seed=1)]
    assert told(runs) == ["MAX_ITER=10", "MAX_ITER=20", "MAX_ITER=10"] or told(runs)[0].startswith("BASE_LR=")
    assert len(few(runs)) == 1 and differing(runs) == [LR, STEPS] or differing(runs) == [STEPS, LR]


def test_what_the_method_is_does_not_differ_beside_its_name():
    one, other = run("a", **{POLICY: "x"}), run("b", **{POLICY: "y"})
    assert told([one, other]) == ["", ""]
    assert told([one, run("a", **{POLICY: "y"}), other]) == ["POLICY=x", "POLICY=y", "POLICY=y"]
    assert told([run("a", **{LR: 0.1}), run("b", **{LR: 0.2})]) == ["BASE_LR=0.1", "BASE_LR=0.2"]  # not of a method


def test_what_the_data_set_is_does_not_differ_beside_its_name():
    runs = [run(dataset="tiny", **{STEPS: 10}), run(dataset="cifar10", **{STEPS: 99})]
    assert told(runs) == ["", ""]
    more = [*runs, run(dataset="tiny", **{STEPS: 10, HEAD: 500})]
    assert told(more) == ["NUM_LABELED_HEAD=1500", "", "NUM_LABELED_HEAD=500"]


def test_runs_of_which_nothing_is_known_are_left_out():
    unknown = Found("0123456789", Path("x"))
    assert told([unknown, run(**{LR: 0.1}), run(**{LR: 0.2})]) == ["", "BASE_LR=0.1", "BASE_LR=0.2"]


@pytest.mark.parametrize("seed", range(30))
def test_few_settings_tell_what_all_of_them_tell(seed: int):
    """And none of them can be left out."""
    draw = random.Random(seed)
    names = [LR, STEPS, HEAD, "SOLVER.MOMENTUM", "MODEL.DEPTH", "PERIODS.EVAL", "MEMO"]
    keys = draw.sample(names, draw.randint(1, len(names)))
    runs = [run(seed=number, **{key: draw.randint(1, 2) for key in keys}) for number in range(draw.randint(2, 9))]

    def groups(some: list[str]) -> int:
        return len({tuple(each.value(key) for key in some) for each in runs})

    found = few(runs)
    assert set(found) <= set(differing(runs)) and groups(found) == groups(differing(runs))
    assert all(groups([each for each in found if each != key]) < groups(found) for key in found)


def test_a_short_name_of_a_key_is_the_name_of_no_other():
    names = shortest(["HEADS.LINEAR.POLICY", "HEADS.BALANCED.POLICY", "SOLVER.BASE_LR", "SEED"])
    assert list(names.values()) == ["LINEAR.POLICY", "BALANCED.POLICY", "BASE_LR", "SEED"]


def test_every_key_that_a_method_sets_is_said_by_its_name():
    for file in (ROOT / "configs" / "methods").glob("*.yaml"):
        assert [key for key in read_file(file) if not key.startswith((*OF_METHOD, "METHOD."))] == [], file.name
