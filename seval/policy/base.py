"""The policy language: pseudo-labels travel through a chain of rules.

It is written as in `logit_adjust(1.0) | threshold(0.95) | one_hot`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib.metadata import entry_points
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor, nn

from seval.calls import Call, PolicyError, parse_call


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

    def previous(self, kind: type[Rule]) -> Rule:
        """The last rule of that kind before this one. Raises `PolicyError` where there is none."""
        for rule in reversed(self.before):
            if isinstance(rule, kind):
                return rule
        name = next(name for name, known in known_rules().items() if known is kind)
        raise PolicyError(f"a rule reads what {name!r} before it has learned, but there is none; write {name} first")


class Step(NamedTuple):
    """What a rule may know of a training step."""

    index: Tensor  # (N,) which unlabeled images these are
    features: Tensor  # (N, D) of the teacher's view
    anchors: Callable[[], Tensor]  # (B, D) the averaged network's features of the labeled images, computed when asked
    anchor_labels: Tensor  # (B,)
    progress: float  # in [0, 1]


class Student(NamedTuple):
    """What a penalty may know of the view that is trained on; gradients flow through it."""

    logits: Tensor  # (N, C)
    features: Tensor  # (N, D)


class Rule(nn.Module):
    """One stage of a policy: changes `probs` or `weight`, never both. Its statistics are buffers.

    A rule never sees the configuration, the network, the logger, the device or the number of steps. In evaluation
    mode (`policy.eval()`) `forward` must not change statistics, draws nothing, and `step` is None. What it draws in
    training comes from PyTorch's global generator.
    """

    def forward(self, pseudo: PseudoLabels, step: Step | None) -> PseudoLabels:
        raise NotImplementedError

    @property
    def penalizes(self) -> bool:
        """Whether `penalty` is to be asked for, which needs an algorithm that trains on a view as it is."""
        return type(self).penalty is not Rule.penalty

    def penalty(self, pseudo: PseudoLabels, step: Step, student: Student) -> Tensor | None:
        """An extra loss that belongs to the rule; `pseudo` has passed through the whole policy."""
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

    def penalties(self, pseudo: PseudoLabels, step: Step, student: Student) -> list[Tensor]:
        """The rules' extra losses."""
        found = (rule.penalty(pseudo, step, student) for rule in self if rule.penalizes)
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


@cache
def known_rules() -> dict[str, type[Rule]]:
    """Every rule by the name a policy uses: the package's own, and those that others register as `seval.rules`.

    Raises `PolicyError` where another package takes a name that is taken, or its rule cannot be imported.
    """
    from seval.policy import RULES

    rules = dict(RULES)
    for point in entry_points(group="seval.rules"):
        if point.name in rules:
            raise PolicyError(f"entry point {point.name} = {point.value}: there is a rule of that name already")
        try:
            rules[point.name] = point.load()
        except Exception as error:  # whatever the other package raises
            raise PolicyError(f"cannot import rule {point.name} = {point.value}: {error}") from None
    return rules


def parse(text: str) -> list[Call]:
    """The calls a policy is made of; arguments equal to a rule's defaults are left out."""
    if not text.strip():
        return []
    return [parse_call(stage, known_rules(), kind="rule", within=text, skip=1) for stage in text.split("|")]


def canonical(text: str) -> str:
    """One spelling for every policy that means the same: `threshold(0.95)`, `threshold(tau=0.95)` are `threshold`."""
    return " | ".join(map(str, parse(text)))


def _merge(parts: Iterator[dict]) -> dict:
    """One mapping of all; two rules that use one name are a mistake in the policy."""
    merged: dict = {}
    for part in parts:
        twice = merged.keys() & part.keys()
        if twice:
            raise PolicyError(f"two rules of one policy both learn {', '.join(sorted(twice))}; use each only once")
        merged |= part
    return merged
