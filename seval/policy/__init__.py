"""Rules by the name a policy uses."""

from __future__ import annotations

from seval.policy.base import Rule
from seval.policy.refinement import LogitAdjust, OneHot
from seval.policy.seval import SevalRefine, SevalThreshold
from seval.policy.thresholds import Threshold

RULES: dict[str, type[Rule]] = {
    "logit_adjust": LogitAdjust,
    "one_hot": OneHot,
    "seval_refine": SevalRefine,
    "seval_threshold": SevalThreshold,
    "threshold": Threshold,
}
