"""Checks of what a configuration names, before anything is built."""

from collections.abc import Iterable

from seval.algorithms import ALGORITHMS
from seval.defaults import Node
from seval.errors import ConfigError
from seval.models.network import CLASSIFIERS
from seval.policy.base import Facts, Policy
from seval.policy.language import build_policy


def check_recipes(cfg: Node, facts: Facts) -> None:
    """Raise the errors of the policies, the algorithm and the classifiers, whose arguments must suit `facts`."""
    policies = [build_policy(head.POLICY, facts) for head in cfg.HEADS.values()]
    check_penalties(cfg.ALGORITHM.NAME.partition("(")[0], policies)
    ALGORITHMS.build(cfg.ALGORITHM.NAME, facts, cfg.ALGORITHM.UNLABELED_WEIGHT)
    for head in (head for head in cfg.HEADS.values() if head.LABELED_LOSS):
        CLASSIFIERS.build(head.CLASSIFIER, 1, facts.num_classes)


def check_penalties(algorithm: str, policies: Iterable[Policy]) -> None:
    """Raise `ConfigError` if a rule adds a loss on the student's view but the algorithm has no such view."""
    for rule in (rule for policy in policies for rule in policy if rule.penalizes):
        if not ALGORITHMS.known[algorithm].has_student:
            raise ConfigError(
                f"{type(rule).__name__} adds a loss on an unmixed view that is trained on, but {algorithm} trains on "
                "no such view; set the weight of that loss to 0 (daso: alignment=0.0, freematch: fairness=0.0)"
            )
