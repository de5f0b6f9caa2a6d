"""The policy language, as in `logit_adjust(1.0) | threshold(0.95) | one_hot`: rules by name, read and built."""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points

from seval.errors import PolicyError
from seval.policy.balancing import BernoulliBalance, Saw
from seval.policy.base import Facts, Policy, Rule
from seval.policy.crest import Crest
from seval.policy.darp import Darp, DarpEstimate
from seval.policy.daso import Daso, DasoAlign, TemplateLabel, TemplateThreshold
from seval.policy.refinement import Align, LogitAdjust, OneHot, Sharpen
from seval.policy.seval import SevalOffset, SevalRefine, SevalThreshold
from seval.policy.thresholds import Adsh, AdshRectify, FlexMatch, FreeMatch, SoftMatch, Threshold
from seval.recipes import Kind, Recipe

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


@cache
def known_rules() -> dict[str, type[Rule]]:
    """Every rule by the name a policy uses: the package's own, and those that others register as `seval.rules`.

    Raises `PolicyError` where another package takes a name that is taken, or its rule cannot be imported.
    """
    rules = dict(RULES)
    for point in entry_points(group="seval.rules"):
        if point.name in rules:
            raise PolicyError(f"entry point {point.name} = {point.value}: there is a rule of that name already")
        try:
            rules[point.name] = point.load()
        except Exception as error:  # whatever the other package raises
            raise PolicyError(f"cannot import rule {point.name} = {point.value}: {error}") from None
    return rules


def canonical(text: str) -> str:
    """One spelling for every policy that means the same: `threshold(0.95)`, `threshold(tau=0.95)` are `threshold`."""
    return " | ".join(map(str, _recipes(text)))


def build_policy(text: str, facts: Facts) -> Policy:
    """The policy of that text. Raises `RecipeError` on an unknown rule or an argument that it does not take."""
    rules: list[Rule] = []
    for recipe in _recipes(text):
        rules.append(_kind().build(recipe, facts._replace(before=tuple(rules))))
    policy = Policy(*rules)
    policy.text = canonical(text)
    policy.artifact()  # raises where two rules learn the same
    return policy


def _recipes(text: str) -> list[Recipe]:
    return [_kind().read(stage, within=text) for stage in text.split("|")] if text.strip() else []


def _kind() -> Kind:
    return Kind("rule", known_rules(), given=1)
