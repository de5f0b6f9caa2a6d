"""Policies as text."""

from __future__ import annotations

import pytest
import torch

from seval.errors import PolicyError, RecipeError
from seval.policy.base import Facts, PseudoLabels
from seval.policy.language import build_policy, canonical, of_other_packages
from tests.policy.four_classes import COUNTS, C, M, probs


@pytest.mark.parametrize(
    "text",
    [
        "",
        "threshold",
        "logit_adjust(0.5) | threshold(0.9) | one_hot",
        "seval_refine(decay=0.9, groups=3) | seval_threshold(0.8) | one_hot",
    ],
)
def test_parse_of_canonical_is_the_identity(text):
    assert canonical(canonical(text)) == canonical(text)
    assert build_policy(text, Facts(7, torch.arange(7.0, 0, -1), 10, 10)).text == canonical(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "treshold(0.9)",
            ["unknown rule 'treshold'", "in policy 'treshold(0.9)'", "did you mean 'threshold'", "one_hot"],
        ),
        ("threshold(0.9", ["cannot read", "threshold(0.9"]),
        ("threshold(0.9) one_hot", ["cannot read"]),
        ("threshold(__import__('os'))", ["cannot read"]),
        ("threshold | ", ["cannot read"]),
        ("threshold(0.9, 3)", ["too many", "tau"]),
        ("threshold(tua=0.9)", ["unexpected keyword argument 'tua'", "tau"]),
        ("one_hot(1)", ["no arguments"]),
    ],
)
def test_bad_recipes_raise_with_the_right_words(text, words):
    with pytest.raises(RecipeError) as error:
        canonical(text)
    assert all(word in str(error.value) for word in words), error.value


#: What another package may name as a rule, and what is said of it.
FOREIGN = {
    "NUMBER": "it must be a subclass of seval.policy.Rule, but is 5",
    "function": "it must be a subclass of",
    "Other": "it must be a subclass of",
    "Stars": "Stars must take facts and named arguments",
    "Nothing": "Nothing must take facts and named arguments",
    "leaves": "it ends the process",
    "loud": r"first\\x1b line second line",
}
MODULE = """
from seval.policy.base import Rule
NUMBER, function = 5, len
class Other: pass
class Stars(Rule):
    def __init__(self, facts, *more): super().__init__()
class Nothing(Rule):
    def __init__(self): super().__init__()
class Refuses(Rule):
    def __init__(self, facts, by: float = 1.0):
        super().__init__()
        self.by = 1 / by
def __getattr__(name):
    if name == "leaves": raise SystemExit
    raise RuntimeError("first\x1b line\\nsecond line" + 5000 * "x")
"""


def test_a_rule_of_another_package_stands_in_a_policy_by_its_name(tmp_path, monkeypatch):
    (tmp_path / "their_rules.py").write_text(
        "from seval.policy.base import Rule\n"
        "class Halve(Rule):\n"
        "    def __init__(self, facts, factor: float = 0.5):\n"
        "        super().__init__()\n"
        "        self.factor = factor\n"
        "    def forward(self, pseudo, step):\n"
        "        return pseudo._replace(weight=self.factor * pseudo.weight)\n"
    )
    (tmp_path / "foreign.py").write_text(MODULE, encoding="utf-8")
    about = tmp_path / "their_rules-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: their-rules\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[seval.rules]\nhalve = their_rules:Halve\n")
    monkeypatch.syspath_prepend(tmp_path)
    of_other_packages.cache_clear()
    try:
        assert canonical("halve(0.5) | threshold") == "halve | threshold"
        policy = build_policy("halve(0.25) | one_hot", Facts(C, COUNTS, M))
        assert (policy(PseudoLabels.of(probs()), None).weight == 0.25).all()
        (about / "entry_points.txt").write_text("[seval.rules]\nthreshold = their_rules:Halve\n")
        of_other_packages.cache_clear()
        with pytest.raises(PolicyError, match="there is a rule of that name already"):
            canonical("one_hot")
        (about / "entry_points.txt").write_text("[seval.rules]\nhalve = their_rules:Absent\n")
        of_other_packages.cache_clear()
        with pytest.raises(PolicyError, match="cannot import rule halve = their_rules:Absent"):
            canonical("one_hot")
        for name, problem in FOREIGN.items():
            (about / "entry_points.txt").write_text(f"[seval.rules]\nhalve = foreign:{name}\n", encoding="utf-8")
            of_other_packages.cache_clear()
            with pytest.raises(PolicyError, match=f"cannot import rule halve = foreign:{name}: {problem}") as caught:
                canonical("one_hot")
            assert str(caught.value).isprintable() and len(str(caught.value)) <= 500
        (about / "entry_points.txt").write_text("[seval.rules]\nhalve = foreign:Refuses\n", encoding="utf-8")
        of_other_packages.cache_clear()
        with pytest.raises(PolicyError, match=r"cannot build 'halve\(by=0.0\)': float division by zero"):
            build_policy("halve(by=0)", Facts(C, COUNTS, M))
    finally:
        of_other_packages.cache_clear()
