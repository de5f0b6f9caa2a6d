"""Rules by the name a policy uses."""

from __future__ import annotations

from seval.policy.balancing import BernoulliBalance, Saw
from seval.policy.base import Rule
from seval.policy.crest import Crest
from seval.policy.darp import Darp, DarpEstimate
from seval.policy.daso import Daso, DasoAlign, TemplateLabel, TemplateThreshold
from seval.policy.refinement import Align, LogitAdjust, OneHot, Sharpen
from seval.policy.seval import SevalOffset, SevalRefine, SevalThreshold
from seval.policy.thresholds import Adsh, AdshRectify, FlexMatch, FreeMatch, SoftMatch, Threshold

RULES: dict[str, type[Rule]] = {
    "adsh": Adsh,
    "adsh_rectify": AdshRectify,
    "align": Align,
    "bernoulli_balance": BernoulliBalance,
    "crest": Crest,
    "darp": Darp,
    "darp_estimate": DarpEstimate,
    "daso": Daso,
    "daso_align": DasoAlign,
    "flexmatch": FlexMatch,
    "freematch": FreeMatch,
    "logit_adjust": LogitAdjust,
    "one_hot": OneHot,
    "saw": Saw,
    "seval_offset": SevalOffset,
    "seval_refine": SevalRefine,
    "seval_threshold": SevalThreshold,
    "sharpen": Sharpen,
    "softmatch": SoftMatch,
    "template_label": TemplateLabel,
    "template_threshold": TemplateThreshold,
    "threshold": Threshold,
}
