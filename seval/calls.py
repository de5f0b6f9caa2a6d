"""Texts such as `threshold(0.95)` or `mixmatch(alpha=0.5)`, by which a configuration names what is built of it."""

from __future__ import annotations

import ast
import difflib
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple


class PolicyError(ValueError):
    """A policy, or another call, that cannot be read or built.

    The message says what was given, what was expected and what to do.
    """


_ENDLESS = (float("inf"), float("-inf"))


class Call(NamedTuple):
    """A name and its arguments, bound to the callable's signature."""

    name: str
    arguments: dict[str, Any]

    def __str__(self) -> str:
        arguments = ", ".join(f"{key}={value!r}" for key, value in self.arguments.items())
        return f"{self.name}({arguments})" if arguments else self.name


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
