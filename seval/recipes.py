"""Recipes: strings such as `threshold(0.95)` or `mixmatch(alpha=0.5)` that say in a configuration what to build."""

import ast
import difflib
import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from seval.errors import RecipeError


class Recipe(NamedTuple):
    """A name and its arguments by parameter name; arguments equal to their defaults are left out."""

    name: str
    arguments: dict[str, Any]

    def __str__(self) -> str:
        arguments = ", ".join(f"{key}={value!r}" for key, value in self.arguments.items())
        return f"{self.name}({arguments})" if arguments else self.name


class Kind(NamedTuple):
    """The names that recipes of one kind can use, and how many leading arguments the code passes when building."""

    name: str
    known: Mapping[str, Callable[..., Any]]
    given: int

    def read(self, text: str, within: str = "") -> Recipe:
        """Parse `name` or `name(1, key=2)`. Raises `RecipeError`, naming `within`, the policy that contains it."""
        where = f" in policy {within!r}" if within else ""
        name, values, named = _parse(text, f"{self.name} {text.strip()!r}{where}")
        if name not in self.known:
            near = difflib.get_close_matches(name, self.known, n=1)
            hint = f"; did you mean {near[0]!r}" if near else ""
            raise RecipeError(f"unknown {self.name} {name!r}{where}{hint}; known: {', '.join(sorted(self.known))}")
        parameters = list(inspect.signature(self.known[name]).parameters.values())[self.given :]
        signature, what = inspect.Signature(parameters), f"{self.name} {text.strip()!r}{where}"
        try:
            bound = signature.bind(*values, **named).arguments
        except TypeError as error:
            takes = ", ".join(str(p).replace("'", "") for p in parameters) or "no arguments"
            raise RecipeError(f"{what}: {error}; it takes {takes}") from None
        return Recipe(name, _changed(bound, signature, what))

    def canonical(self, text: str) -> str:
        """The same spelling for all recipes that mean the same."""
        return str(self.read(text))

    def build(self, recipe: str | Recipe, *given: object) -> Any:
        """Call what the recipe names, with the `given` arguments first and the recipe's own after them."""
        recipe = self.read(recipe) if isinstance(recipe, str) else recipe
        return self.known[recipe.name](*given, **recipe.arguments)


def _parse(text: str, what: str) -> tuple[str, list[Any], dict[str, Any]]:
    """(name, positional values, named values)."""
    try:
        node = ast.parse(text.strip(), mode="eval").body
        call = node if isinstance(node, ast.Call) else ast.Call(node, [], [])
        if not isinstance(call.func, ast.Name) or any(keyword.arg is None for keyword in call.keywords):
            raise ValueError
        named = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
        return call.func.id, [ast.literal_eval(arg) for arg in call.args], named
    except (SyntaxError, ValueError):
        raise RecipeError(f"cannot read {what}; write name, name(0.95) or name(key=0.95)") from None


def _changed(bound: Mapping[str, Any], signature: inspect.Signature, what: str) -> dict[str, Any]:
    """The arguments that differ from their defaults, converted to the defaults' types."""
    changed = {}
    for key, value in bound.items():
        default = signature.parameters[key].default
        value = float(value) if isinstance(default, float) and type(value) is int else value
        endless = isinstance(value, float) and math.isinf(value)
        if default is not inspect.Parameter.empty and (type(value) is not type(default) or endless):
            raise RecipeError(f"{what}: {key} is {value!r}, but must be a finite {type(default).__name__}")
        if value != default:
            changed[key] = value
    return changed
