"""The public surface of the library: what `import seval` and `seval.policy` give, and what a user of a run needs."""

from __future__ import annotations

import ast
import doctest
import importlib
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

import seval
import seval.policy
from seval.errors import MissingPrerequisite, PolicyError, RecordError, SevalError
from seval.policy import Facts, PseudoLabels, Rule, Step, build_policy, register
from seval.policy.language import RULES, canonical
from tests.settings import ROOT, small


@pytest.mark.parametrize("package", [seval, seval.policy], ids=lambda package: package.__name__)
def test_every_public_name_is_listed_for_people_and_for_type_checkers(package):
    (block,) = (node for node in ast.parse(Path(package.__file__).read_text()).body if isinstance(node, ast.If))
    typed = {alias.name for line in block.body for alias in line.names}
    assert typed == set(package.__all__) and typed <= set(dir(package)) and package.__all__ == sorted(package.__all__)
    for line in block.body:
        for alias in line.names:
            found = getattr(package, alias.name)
            if f"{line.module}.{alias.name}" in sys.modules:
                assert found is sys.modules[f"{line.module}.{alias.name}"]
            else:
                assert found is getattr(importlib.import_module(line.module), alias.name)
    with pytest.raises(AttributeError, match=f"module '{package.__name__}' has no attribute 'laod'"):
        package.laod  # noqa: B018


def test_names_are_imported_when_they_are_used():
    """The fits need no PyTorch, which takes seconds to import; `seval.policy` needs no import of its own."""
    lines = (
        "import sys, seval; print(sorted({'torch', 'numpy', 'scipy'} & sys.modules.keys()))",
        "seval.fit_offsets([[2, 0], [0, 1]], [0, 1], solver='exact'); print('torch' in sys.modules)",
        "print(seval.policy.Rule.__name__, seval.errors.SevalError.__name__)",
    )
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["[]", "False", "Rule SevalError"]


def test_the_example_of_the_docstring(in_root):
    found = doctest.testmod(seval, extraglobs={"numpy": np}, optionflags=doctest.ELLIPSIS)
    assert found.attempted >= 5 and not found.failed


def test_a_run_in_a_session(tmp_path):
    """From new to done, it says what it is, what it measured and what it learned."""
    run = seval.Run(small("fixmatch_seval_load", tmp_path))
    assert seval.Run(seval.load((), ["OUTPUT_DIR", tmp_path])).folder.parent == tmp_path
    assert repr(run) == f"<Run {run.id}: fixmatch_seval_load · tiny · seed 0, new>" and run.history() == []
    with pytest.raises(RecordError, match=f"run {run.id} is not done"):
        run.learned()
    with pytest.raises(MissingPrerequisite) as caught:
        run.execute()
    assert caught.value.__notes__ == ["from Python: for each in run.chain(): each.execute()"]
    for each in run.chain():
        each.execute()
    assert repr(run).endswith(", done>")
    assert [line["step"] for line in run.history()] == [3, 6, 9, 12]
    last = run.history()[-1]["test"]["ema"]["none"]["top1"]
    assert last == run.record()["results"]["test"]["ema"]["none"]["top1"]["last"]
    learned = run.learned()["linear"]
    assert learned["pi_fitted"].shape == learned["tau_fitted"].shape == (4, 10)
    (run.folder / "record.json").unlink()
    assert repr(run).endswith(", resumable>")


class Halve(Rule):
    def __init__(self, facts: Facts, by: float = 2.0) -> None:
        super().__init__()
        self.by = by

    def forward(self, pseudo: PseudoLabels, step: Step | None) -> PseudoLabels:
        return pseudo._replace(weight=pseudo.weight / self.by)


@pytest.fixture
def rules(monkeypatch):
    """What a test registers is forgotten after it."""
    monkeypatch.setattr("seval.policy.language.RULES", dict(RULES))


def test_a_registered_rule_is_one_of_the_language(rules):
    register("halve", Halve)
    assert canonical("halve(2) | one_hot") == "halve | one_hot"
    policy = build_policy("halve(4.0)", Facts.of([3, 2, 1], num_unlabeled=9))
    assert policy(PseudoLabels.of(torch.eye(3)), None).weight.tolist() == [0.25] * 3

    again = type("Halve", (Rule,), {"__module__": __name__, "__init__": lambda self, facts: Rule.__init__(self)})
    register("halve", again)  # as when the cell of a notebook runs once more
    assert type(build_policy("halve", Facts.of([3, 2, 1], 9))[0]) is again


@pytest.mark.parametrize(
    ("name", "rule", "words"),
    [
        ("threshold", Halve, "cannot register threshold: it is seval.policy.thresholds.Threshold; choose another name"),
        ("keep share", Halve, "cannot register a rule as 'keep share'; expected a name such as 'keep_share'"),
        ("", Halve, "expected a name"),
        ("lambda", Halve, "expected a name"),
        (Halve, "halve", "expected a name"),
        ("halve", "Halve", "cannot register halve: it must be a subclass of seval.policy.Rule, but is 'Halve'"),
        ("halve", Halve(Facts.of([1, 1], 0)), "it must be a subclass of seval.policy.Rule"),
        ("halve", type("Bare", (Rule,), {"__init__": lambda self: None}), "Bare must take facts and named arguments"),
    ],
)
def test_what_cannot_be_registered(rules, name, rule, words):
    known = dict(RULES)
    with pytest.raises(PolicyError, match=words):
        register(name, rule)
    assert known == RULES


@pytest.mark.parametrize(
    "counts",
    [
        [500, 0, 5],
        [5],
        [],
        5,
        [[5, 5]],
        [5, float("nan")],
        [5, -1],
        [5, float("inf")],
        ["5", "many"],
        Counter("aab"),
        None,
    ],
)
def test_bad_class_counts_are_refused(counts):
    with pytest.raises(PolicyError, match=r"class_counts is .*; expected \(C,\) counts of labeled images"):
        Facts.of(counts, 10)


@pytest.mark.parametrize("kind", [list, tuple, np.array, torch.tensor])
def test_facts_of_any_counts(kind):
    facts = Facts.of(kind([500, 50, 5]), num_unlabeled=4000, num_held_out=60, feature_dim=8)
    assert facts.num_classes == 3 and facts.class_counts.tolist() == [500, 50, 5] and facts[2:5] == (4000, 60, 8)
    assert facts.class_counts.dtype == torch.float32


def test_a_policy_outside_a_run_says_what_it_needs():
    facts, pseudo = Facts.of([5, 3], num_unlabeled=4), PseudoLabels.of(torch.eye(2))
    with pytest.raises(SevalError, match="give Facts the number num_held_out"):
        build_policy("seval_refine", facts)
    with pytest.raises(SevalError, match="pass HeldOut"):
        build_policy("seval_refine", facts._replace(num_held_out=2)).refresh(None, lambda: pseudo.probs, 1.0)
    step = Step.of(torch.arange(2), progress=0.5)
    assert build_policy("flexmatch | one_hot", facts)(pseudo, step).weight.tolist() == [1, 1]
    with pytest.raises(SevalError, match="a rule of this policy uses features"):
        build_policy("daso", facts)(pseudo, step)
