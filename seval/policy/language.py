"""The policy language: parses and builds policies such as `logit_adjust(1.0) | threshold(0.95) | one_hot`."""

import inspect
from collections.abc import Iterable
from functools import cache
from importlib.metadata import entry_points
from keyword import iskeyword

from seval.errors import PolicyError
from seval.policy.answers import Cdmad, ScThreshold, Tras
from seval.policy.balancing import BernoulliBalance, GroupWeight, Saw
from seval.policy.base import Facts, Policy, Rule
from seval.policy.crest import Crest
from seval.policy.darp import Darp, DarpEstimate
from seval.policy.daso import Daso, DasoAlign, TemplateLabel, TemplateThreshold
from seval.policy.priors import Debias, FlexDA, SimPro
from seval.policy.refinement import Align, LogitAdjust, OneHot, Sharpen
from seval.policy.seval import SevalOffset, SevalRefine, SevalThreshold
from seval.policy.thresholds import Adsh, AdshRectify, FlexMatch, FreeMatch, SoftMatch, Threshold
from seval.recipes import Kind, Recipe
from seval.text import short, short_line

RULES: dict[str, type[Rule]] = {
    "adsh": Adsh,
    "adsh_rectify": AdshRectify,
    "align": Align,
    "bernoulli_balance": BernoulliBalance,
    "cdmad": Cdmad,
    "crest": Crest,
    "darp": Darp,
    "darp_estimate": DarpEstimate,
    "daso": Daso,
    "daso_align": DasoAlign,
    "debias": Debias,
    "flexda": FlexDA,
    "flexmatch": FlexMatch,
    "freematch": FreeMatch,
    "group_weight": GroupWeight,
    "logit_adjust": LogitAdjust,
    "one_hot": OneHot,
    "saw": Saw,
    "sc_threshold": ScThreshold,
    "seval_offset": SevalOffset,
    "seval_refine": SevalRefine,
    "seval_threshold": SevalThreshold,
    "sharpen": Sharpen,
    "simpro": SimPro,
    "softmatch": SoftMatch,
    "template_label": TemplateLabel,
    "template_threshold": TemplateThreshold,
    "threshold": Threshold,
    "tras": Tras,
}


def known_rules() -> dict[str, type[Rule]]:
    """All rules by name: RULES, and those that other packages name as entry points `seval.rules`.

    Raises `PolicyError` if another package uses a name that is taken, or if its rule cannot be imported.
    """
    return of_other_packages() | RULES


@cache
def of_other_packages() -> dict[str, type[Rule]]:
    """The rules that are entry points, by name; what is installed is read once."""
    rules: dict[str, type[Rule]] = {}
    for point in entry_points(group="seval.rules"):
        if point.name in RULES or point.name in rules:
            raise PolicyError(f"entry point {point.name} = {point.value}: there is a rule of that name already")
        try:
            rules[point.name] = _rule(point.load())
        except (Exception, SystemExit) as error:  # whatever the other package raises
            reason = short_line(error) if isinstance(error, Exception) else "it ends the process"
            raise PolicyError(f"cannot import rule {point.name} = {point.value}: {reason}") from None
    return rules


def register(name: str, rule: type[Rule]) -> None:
    """Let policies of this process use `rule` by `name`, for example in a notebook or a test.

    A class that is defined again, as when its cell runs twice, replaces itself. `del RULES[name]` undoes it. What
    commands can use is an entry point `seval.rules`. Raises `PolicyError` if the name is taken or `rule` is no rule.
    """
    if not isinstance(name, str) or not name.isidentifier() or iskeyword(name):
        raise PolicyError(f"cannot register a rule as {short(name)}; expected a name such as 'keep_share'")
    try:
        _rule(rule)
    except TypeError as error:
        raise PolicyError(f"cannot register {name}: {short_line(error)}") from None
    taken = known_rules().get(name, rule)
    if (taken.__module__, taken.__qualname__) != (rule.__module__, rule.__qualname__):
        raise PolicyError(f"cannot register {name}: it is {taken.__module__}.{taken.__qualname__}; choose another name")
    RULES[name] = rule


def _rule(loaded: object) -> type[Rule]:
    """What an entry point names. Raises `TypeError` unless it is a rule whose arguments all have names."""
    if not isinstance(loaded, type) or not issubclass(loaded, Rule):
        raise TypeError(f"it must be a subclass of seval.policy.Rule, but is {short(loaded)}")
    kinds = [parameter.kind for parameter in inspect.signature(loaded).parameters.values()]
    if not kinds or set(kinds) - {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY}:
        raise TypeError(f"{loaded.__name__} must take facts and named arguments, without * and **")
    return loaded


def canonical(text: str) -> str:
    """The same spelling for policies that mean the same: `threshold(0.95)` and `threshold(tau=0.95)` -> `threshold`."""
    return " | ".join(map(str, _recipes(text)))


def build_policy(text: str, facts: Facts) -> Policy:
    """Build a policy from its text. Raises `RecipeError` for an unknown rule or a wrong argument."""
    rules: list[Rule] = []
    for recipe in _recipes(text):
        try:
            rules.append(_kind().build(recipe, facts._replace(before=tuple(rules))))
        except (TypeError, ArithmeticError) as error:  # arguments that the rule cannot use
            raise PolicyError(f"cannot build {short(str(recipe))}: {short_line(error)}") from error
    policy = Policy(*rules)
    policy.text = canonical(text)
    policy.artifact()  # raises if two rules learn the same quantity
    return policy


def rules_of(texts: Iterable[str]) -> list[type[Rule]]:
    """The rules that policies name. Raises `RecipeError` for an unknown one."""
    return [known_rules()[recipe.name] for text in texts for recipe in _recipes(text)]


def _recipes(text: str) -> list[Recipe]:
    return [_kind().read(stage, within=text) for stage in text.split("|")] if text.strip() else []


def _kind() -> Kind:
    return Kind("rule", known_rules(), given=1)
