"""Policies, which turn predictions on unlabeled images into pseudo-labels, and what a rule of your own needs."""

from typing import TYPE_CHECKING

from seval.lazy import lazy

if TYPE_CHECKING:
    from seval.errors import PolicyError
    from seval.policy.base import Facts, HeldOut, Policy, PseudoLabels, Rule, Step, Student
    from seval.policy.language import build_policy, register

__all__ = [
    "Facts",
    "HeldOut",
    "Policy",
    "PolicyError",
    "PseudoLabels",
    "Rule",
    "Step",
    "Student",
    "build_policy",
    "register",
]
__getattr__, __dir__ = lazy(
    __name__,
    {
        "seval.errors": ("PolicyError",),
        "seval.policy.base": ("Facts", "HeldOut", "Policy", "PseudoLabels", "Rule", "Step", "Student"),
        "seval.policy.language": ("build_policy", "register"),
    },
)
