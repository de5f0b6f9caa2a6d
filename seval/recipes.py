"""Recipes: strings such as `threshold(0.95)` or `mixmatch(alpha=0.5)` that say in a configuration what to build."""

import ast
import difflib
import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from seval.errors import RecipeError
from seval.text import LONGEST, short, short_line

_LARGEST = 1e18  # no number of a recipe reaches it


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
        where = f" in policy {short(within, 80)}" if within else ""
        what = f"{self.name} {short(text.strip(), 80)}{where}"
        name, values, named = _parse(text, what)
        if name not in self.known:
            near = difflib.get_close_matches(name[:100], self.known, n=1)
            hint = f"; did you mean {near[0]!r}" if near else ""
            known = ", ".join(sorted(self.known))
            raise RecipeError(f"unknown {self.name} {short(name, 60)}{where}{hint}; known: {known}")
        parameters = list(inspect.signature(self.known[name]).parameters.values())[self.given :]
        signature = inspect.Signature(parameters)
        try:
            bound = signature.bind(*values, **named).arguments
        except TypeError as error:
            takes = ", ".join(str(p).replace("'", "") for p in parameters) or "no arguments"
            raise RecipeError(f"{what}: {short_line(error, 120)}; it takes {takes}") from None
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
        if len(text) > LONGEST:
            raise ValueError
        with warnings.catch_warnings():  # Python warns of some texts that it refuses here anyway
            warnings.simplefilter("ignore")
            node = ast.parse(text.strip(), mode="eval").body
        call = node if isinstance(node, ast.Call) else ast.Call(node, [], [])
        names = [keyword.arg for keyword in call.keywords]
        if not isinstance(call.func, ast.Name) or None in names or len(set(names)) < len(names):
            raise ValueError
        named = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
        return call.func.id, [ast.literal_eval(arg) for arg in call.args], named
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError, OverflowError):
        raise RecipeError(f"cannot read {what}; write name, name(0.95) or name(key=0.95)") from None


def _changed(bound: Mapping[str, Any], signature: inspect.Signature, what: str) -> dict[str, Any]:
    """The arguments that differ from their defaults, converted to the defaults' types."""
    changed = {}
    for key, value in bound.items():
        parameter, default = signature.parameters[key], signature.parameters[key].default
        if isinstance(default, float) and type(value) is int and abs(value) < _LARGEST:
            value = float(value)
        kind = type(value if default is None or default is inspect.Parameter.empty else default)
        if default is inspect.Parameter.empty and parameter.annotation is int:
            kind = int
        if type(value) is not kind or isinstance(value, int | float) and not abs(value) < _LARGEST:
            raise RecipeError(f"{what}: {key} is {short(value)}, but must be a finite {kind.__name__}")
        if value != default:
            changed[key] = value
    return changed
