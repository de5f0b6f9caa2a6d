"""Recipes as people and attackers write them: a recipe or one short line, at once."""

from __future__ import annotations

import random
import time

import pytest

from seval.algorithms import ALGORITHMS
from seval.errors import RecipeError
from seval.losses import LABELED_LOSSES
from seval.policy.language import RULES, canonical
from seval.recipes import Kind

HOSTILE = [
    "threshold({[]: 1})",
    "threshold(" + "-" * 3000 + "1)",
    "threshold(" + "9" * 400 + ")",
    "threshold(" + "9" * 5000 + ")",
    "seval_refine(groups=" + "9" * 400 + ")",
    "threshold(1e999)",
    "threshold(-1e999)",
    "threshold(2j)",
    "threshold(True)",
    "threshold(*[1])",
    "threshold(**{})",
    "threshold(tau=1, tau=1)",
    "threshold(0.9)(0.9)",
    "threshold.tau",
    "threshold(lambda: 0)",
    "threshold(f'{1}')",
    "threshold('\\d')",
    "threshold(1if 1else 1)",
    "threshold(\0)",
    "\ud800",
    "(" * 3000,
    "threshold(" + "[" * 300 + "]" * 300 + ")",
    "not " * 5000 + "1",
    "x" * 100_000,
    "threshold|" * 5000,
    "threshold(" + "'x'," * 1000 + ")",
    "\x1b[31mthreshold",
    "threshold\nthreshold",
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_policy_is_one_short_line_at_once(text):
    begun = time.monotonic()
    with pytest.raises(RecipeError) as caught:
        canonical(text)
    assert str(caught.value).isprintable() and len(str(caught.value)) <= 500, str(caught.value)
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize("kind", [ALGORITHMS, LABELED_LOSSES], ids=["algorithm", "loss"])
@pytest.mark.parametrize("argument", ["9" * 400, "[1]", "'a'", "None", "1e999", "nan", "{}"])
def test_an_argument_of_another_type_is_refused(kind, argument):
    name, key = {"algorithm": ("mixmatch", "alpha"), "labeled loss": ("ldam", "margin")}[kind.name]
    with pytest.raises(RecipeError) as caught:
        kind.canonical(f"{name}({key}={argument})")
    assert len(str(caught.value)) <= 500


@pytest.mark.parametrize("text", ["mixmatch(alpha=0)", "remixmatch(alpha=-1)"])
def test_an_algorithm_that_cannot_draw_is_refused(text):
    with pytest.raises(RecipeError, match="alpha of MixUp is .* at least 0.001"):
        ALGORITHMS.build(text, None, 1.0)


PARTS = [
    *RULES,
    *"(),='\"|+-*[]{}.: \n\\#@;",
    "tau",
    "decay=",
    "0.5",
    "1e3",
    "9" * 50,
    "None",
    "True",
    "lambda",
    "\0",
    "é",
]


def test_random_policies_have_one_spelling_or_are_a_short_line():
    rng, read = random.Random(1), 0
    for _ in range(4000):
        text = "".join(rng.choices(PARTS, k=rng.randint(1, 6)))
        try:
            spelled = canonical(text)
        except RecipeError as error:
            assert str(error).isprintable() and len(str(error)) <= 500, text
        else:
            read += 1
            assert canonical(spelled) == spelled
    assert read > 20


def test_a_builder_may_take_what_has_no_default():
    kind = Kind("thing", {"pair": lambda given, first, second=None: (given, first, second)}, given=1)
    assert kind.build("pair(1)", "x") == ("x", 1, None)
    assert kind.build("pair([1, 2], second='b')", "x") == ("x", [1, 2], "b")
