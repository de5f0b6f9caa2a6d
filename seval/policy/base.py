"""The policy language: pseudo-labels travel through a chain of rules.

It is written as in `logit_adjust(1.0) | threshold(0.95) | one_hot`.
"""

from __future__ import annotations

import ast
import difflib
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor, nn


class PolicyError(ValueError):
    """A policy that cannot be read or built; the message says what was given, what was expected and what to do."""


class PseudoLabels(NamedTuple):
    """What travels through a policy."""

    probs: Tensor  # (N, C), rows on the simplex
    weight: Tensor  # (N,), >= 0; 1 before any threshold rule

    @classmethod
    def of(cls, probs: Tensor) -> Self:
        """Pseudo-labels of full weight."""
        return cls(probs, torch.ones_like(probs[:, 0]))

    def check(self) -> Self:
        """Raise unless rows lie on the simplex and weights are not negative; for tests and new rules, not the step."""
        sums = self.probs.sum(1)
        if self.probs.min() < 0 or not torch.allclose(sums, torch.ones_like(sums), atol=1e-5) or self.weight.min() < 0:
            raise ValueError("pseudo-labels must have rows on the simplex and weights >= 0")
        return self


class HeldOut(NamedTuple):
    """Predictions on the held-out split, refined by the rules before the one that sees them."""

    probs: Tensor  # (K, C) float64
    labels: Tensor  # (K,)


class Facts(NamedTuple):
    """What a rule may know when it is built."""

    num_classes: int
    class_counts: Tensor  # (C,) labeled images of each class
    num_unlabeled: int
    num_held_out: int = 0
    feature_dim: int = 0
    num_evaluations: int = 0  # that `refresh` will see; 0 where it is not known
    artifacts: Mapping[str, np.ndarray] = {}  # what the prerequisite run's policy of this head left
    before: tuple[Rule, ...] = ()  # the rules before this one in its policy


class Step(NamedTuple):
    """What a rule may know of a training step."""

    index: Tensor  # (N,) which unlabeled images these are
    features: Tensor  # (N, D) of the teacher's view
    anchors: Tensor  # (B, D) features of the labeled images
    anchor_labels: Tensor  # (B,)
    progress: float  # in [0, 1]


class Rule(nn.Module):
    """One stage of a policy: changes `probs` or `weight`, never both. Its statistics are buffers.

    A rule never sees the configuration, the network, the logger, the device or the number of steps. In evaluation
    mode (`policy.eval()`) `forward` must not change statistics.
    """

    def forward(self, pseudo: PseudoLabels, step: Step | None) -> PseudoLabels:
        raise NotImplementedError

    def penalty(self, pseudo: PseudoLabels, step: Step, student: Tensor) -> Tensor | None:
        """An extra loss that belongs to the rule; `student` (N, C) are the logits of the strong view."""
        return None

    def refresh(self, held_out: HeldOut | None, predict: Callable[[], Tensor], progress: float) -> dict[str, float]:
        """Re-estimate slow statistics at an evaluation and return what to log; `predict` is (M, C) on the unlabeled."""
        return {}

    def offsets(self) -> dict[str, Tensor]:
        """Learned log offsets (C,) to subtract from test logits, by name."""
        return {}

    def artifact(self) -> dict[str, np.ndarray]:
        """What a later run may stand on."""
        return {}


class Policy(nn.Sequential):
    """A chain of rules; `text` is its canonical form."""

    text: str = ""

    @classmethod
    def parse(cls, text: str, facts: Facts) -> Self:
        """Build the policy of that text. Raises `PolicyError` on an unknown rule or an argument it does not take."""
        rules: list[Rule] = []
        for call in parse(text):
            rules.append(known_rules()[call.name](facts._replace(before=tuple(rules)), **call.arguments))
        policy = cls(*rules)
        policy.text = canonical(text)
        policy.artifact()  # raises where two rules learn the same
        return policy

    def forward(self, pseudo: PseudoLabels, step: Step | None) -> PseudoLabels:
        for rule in self:
            pseudo = rule(pseudo, step)
        return pseudo

    def penalties(self, pseudo: PseudoLabels, step: Step, student: Tensor) -> list[Tensor]:
        """The rules' extra losses."""
        found = (rule.penalty(pseudo, step, student) for rule in self)
        return [penalty for penalty in found if penalty is not None]

    @torch.no_grad()
    def refresh(self, held_out: HeldOut | None, predict: Callable[[], Tensor], progress: float) -> dict[str, float]:
        """Refresh each rule on held-out predictions that passed through the rules before it."""
        log: dict[str, float] = {}
        training = self.training
        self.eval()
        for rule in self:
            log |= rule.refresh(held_out, predict, progress)
            if held_out is not None:
                held_out = held_out._replace(probs=rule(PseudoLabels.of(held_out.probs), None).probs)
        self.train(training)
        return log

    def offsets(self) -> dict[str, Tensor]:
        """Every learned test-time offset."""
        return _merge(rule.offsets() for rule in self)

    def artifact(self) -> dict[str, np.ndarray]:
        """Every rule's artifact, in one mapping."""
        return _merge(rule.artifact() for rule in self)


_ENDLESS = (float("inf"), float("-inf"))


class Call(NamedTuple):
    """A name and its arguments, bound to the callable's signature."""

    name: str
    arguments: dict[str, Any]

    def __str__(self) -> str:
        arguments = ", ".join(f"{key}={value!r}" for key, value in self.arguments.items())
        return f"{self.name}({arguments})" if arguments else self.name


def known_rules() -> dict[str, type[Rule]]:
    """Every rule by the name a policy uses."""
    from seval.policy import RULES

    return RULES


def parse(text: str) -> list[Call]:
    """The calls a policy is made of; arguments equal to a rule's defaults are left out."""
    if not text.strip():
        return []
    return [parse_call(stage, known_rules(), kind="rule", within=text, skip=1) for stage in text.split("|")]


def canonical(text: str) -> str:
    """One spelling for every policy that means the same: `threshold(0.95)`, `threshold(tau=0.95)` are `threshold`."""
    return " | ".join(map(str, parse(text)))


def parse_call(text: str, known: Mapping[str, Callable], *, kind: str, within: str = "", skip: int = 0) -> Call:
    """Read `name` or `name(1, key=2)` against the signature of `known[name]`, less its first `skip` parameters."""
    where = f" in policy {within!r}" if within else ""
    try:
        node = ast.parse(text.strip(), mode="eval").body
        call = node if isinstance(node, ast.Call) else ast.Call(node, [], [])
        name = call.func.id
        values = [ast.literal_eval(arg) for arg in call.args]
        named = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
    except (SyntaxError, ValueError, AttributeError):
        written = text.strip()
        raise PolicyError(f"cannot read {kind} {written!r}{where}; write name, name(0.95) or name(key=0.95)") from None
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]!r}" if near else ""
        raise PolicyError(f"unknown {kind} {name!r}{where}{hint}; known: {', '.join(sorted(known))}")
    parameters = list(inspect.signature(known[name]).parameters.values())[skip:]
    signature = inspect.Signature(parameters)
    try:
        bound = signature.bind(*values, **named).arguments
    except TypeError as error:
        takes = ", ".join(str(p).replace("'", "") for p in parameters) or "no arguments"
        raise PolicyError(f"{kind} {text.strip()!r}{where}: {error}; it takes {takes}") from None
    changed = {}
    for key, value in bound.items():
        default = signature.parameters[key].default
        value = float(value) if isinstance(default, float) and type(value) is int else value
        if default is not inspect.Parameter.empty and (type(value) is not type(default) or value in _ENDLESS):
            expected = type(default).__name__
            raise PolicyError(f"{kind} {text.strip()!r}{where}: {key} is {value!r}, but must be a finite {expected}")
        if value != default:
            changed[key] = value
    return Call(name, changed)


def _merge(parts: Iterator[dict]) -> dict:
    """One mapping of all; two rules that use one name are a mistake in the policy."""
    merged: dict = {}
    for part in parts:
        twice = merged.keys() & part.keys()
        if twice:
            raise PolicyError(f"two rules of one policy both learn {', '.join(sorted(twice))}; use each only once")
        merged |= part
    return merged
