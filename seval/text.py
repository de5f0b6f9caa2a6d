"""Text becomes a value only here: Python literals, JSON and YAML, bounded in size, depth and type.

Whatever the text is, the outcome is a value or one error with a short reason, never another exception.
"""

import ast
import json
import re
import reprlib
import warnings
from typing import Any, NoReturn

import yaml
from yaml.composer import ComposerError

from seval.errors import ConfigError, one_line

LONGEST = 20_000  # characters of a Python literal
LARGEST = 100_000  # nodes of a YAML file, each alias counted as what it repeats
_TOO_MANY = f"it has more than {LARGEST} values"
_LINE = 1_000  # characters of a line of a message
_DIGITS = 18  # of a whole number; more would not fit into 64 bits
_FAILURES = (ValueError, SyntaxError, TypeError, RecursionError, MemoryError, OverflowError)
_PLAIN = (bool, int, float, str, type(None))


def literal(text: str) -> object:
    """The value of a Python literal: numbers, text, True, False, None, and lists, tuples and dicts of them.

    Raises `ValueError` for anything else.
    """
    if len(text) > LONGEST:
        raise ValueError(f"a value of {len(text)} characters; at most {LONGEST} are read")
    try:
        with warnings.catch_warnings():  # Python warns of some texts that mean nothing here
            warnings.simplefilter("ignore")
            value = ast.literal_eval(text.strip())
        _check_plain(value)
        return value
    except _FAILURES as error:
        raise ValueError(f"{short(text)} is no value: {short_line(error)}") from None


def json_value(text: str | bytes) -> Any:
    """The value of JSON text in UTF-8, without NaN, Infinity and repeated names. Raises `ValueError`."""
    try:
        text = text.decode() if isinstance(text, bytes) else text
        return json.loads(text, parse_constant=_no_constant, object_pairs_hook=_unique)
    except _FAILURES as error:
        raise ValueError(short_line(error)) from None


def yaml_value(text: str, name: str) -> Any:
    """The value of YAML text; names are text as written, and numbers are decimal.

    Raises `ConfigError`, with the line in `name`, also where YAML would silently read something else: a name given
    twice, `010` (8 in YAML), `1:30` (90), `no` (False).
    """
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _check_nodes(node, loader, {}, set())
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        problem = printable(" ".join(filter(None, (error.context, error.problem))))
        raise ConfigError(f"cannot read {name}{line}: {_cut(problem, 400)}") from None
    except (yaml.YAMLError, *_FAILURES) as error:
        raise ConfigError(f"cannot read {name}: {short_line(error)}") from None


def short(value: object, limit: int = 120) -> str:
    """`repr(value)` for a message, bounded in size and time."""
    return _cut(_Repr().repr(value), limit)


def short_line(error: Exception, limit: int = 400) -> str:
    """The message of an error from another library in one bounded line."""
    told = {RecursionError: "it is nested too deeply", MemoryError: "it is too large or nested too deeply"}
    return _cut(printable(told.get(type(error)) or one_line(error)), limit)


def printable(text: str) -> str:
    """The text with control characters, such as escape sequences and newlines, made visible: for terminals."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def shown(message: str) -> str:
    """A message for a terminal: printable lines of bounded length, of which the beginning and the end are kept.

    A line that is indented is a command to be pasted, and stays whole.
    """
    lines = map(printable, message.split("\n"))
    return "\n".join(
        line if line.startswith("  ") or len(line) <= _LINE else f"{line[: _LINE - 300]} ... {line[-250:]}"
        for line in lines
    )


class _Repr(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother, self.maxlong = 4, 100, 100, 40
        self.maxlist = self.maxtuple = self.maxdict = 8

    def repr1(self, x: Any, level: int) -> str:
        if isinstance(x, dict) and type(x) is not dict:
            x = dict(x)
        try:
            return super().repr1(x, level)
        except (ValueError, RecursionError):  # a whole number of more than 4,300 digits
            return f"<{type(x).__name__}>"


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: limit - 4]} ..."


def _check_plain(value: object, depth: int = 0) -> None:
    if depth > 20:
        raise ValueError("it is nested too deeply")
    if isinstance(value, list | tuple | dict):
        for each in value:
            _check_plain(each, depth + 1)
        for each in value.values() if isinstance(value, dict) else ():
            _check_plain(each, depth + 1)
    elif not isinstance(value, _PLAIN):
        raise ValueError(f"values of type {type(value).__name__} are not used here")
    elif type(value) is int and abs(value) >= 10**_DIGITS:
        raise ValueError(f"whole numbers have at most {_DIGITS} digits")


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("a name is given twice")
    return value


class _Loader(yaml.SafeLoader):
    """YAML with decimal numbers, `true` and `false`; what plain YAML would read as something else needs quotes."""

    composed = 0  # nodes so far

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.composed += 1
        if self.composed > LARGEST:  # before minutes are spent on the rest
            raise ComposerError(None, None, _TOO_MANY, self.peek_event().start_mark)
        return super().compose_node(parent, index)

    def mapping(self, node: yaml.MappingNode) -> dict[str, Any]:
        value: dict[str, Any] = {}
        for key, inner in node.value:
            if not isinstance(key, yaml.ScalarNode):
                _refuse(key, "a name must be text")
            if key.value in value:
                _refuse(key, f"{short(key.value)} is given twice in one mapping")
            value[key.value] = self.construct_object(inner, deep=True)
        return value

    def sequence(self, node: yaml.SequenceNode) -> list[Any]:
        return [self.construct_object(inner, deep=True) for inner in node.value]

    def number(self, node: yaml.ScalarNode) -> int:
        if len(node.value) > _DIGITS:
            _refuse(node, f"whole numbers have at most {_DIGITS} digits; write it in quotes if it is text")
        return int(node.value)

    def text(self, node: yaml.ScalarNode) -> str:
        elsewhere = yaml.SafeLoader.yaml_implicit_resolvers.get(node.value[:1], ())
        if node.style is None and any(regexp.match(node.value) for tag, regexp in elsewhere if tag not in _AS_TEXT):
            either = "true or false, or in quotes" if node.value.isalpha() else "it in quotes, or as a decimal number"
            _refuse(node, f"{short(node.value)} has another meaning in YAML; write {either}")
        return node.value


_WHOLE = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?([0-9]+\.[0-9]*([eE][-+]?[0-9]+)?|\.[0-9]+([eE][-+]?[0-9]+)?)")
_TAG = "tag:yaml.org,2002:"
_AS_TEXT = {f"{_TAG}{name}" for name in ("timestamp", "merge", "value")}  # dates stay as they were written
_Loader.yaml_implicit_resolvers = {}
for _name, _pattern, _first in (
    ("null", re.compile(r"~|null|Null|NULL|"), ["~", "n", "N", ""]),
    ("bool", re.compile(r"true|True|TRUE|false|False|FALSE"), list("tTfF")),
    ("int", _WHOLE, list("-+0123456789")),
    ("float", _FLOAT, list("-+0123456789.")),
):
    _Loader.add_implicit_resolver(f"{_TAG}{_name}", re.compile(rf"^(?:{_pattern.pattern})$"), _first)
_Loader.yaml_constructors = {
    f"{_TAG}null": lambda loader, node: None,
    f"{_TAG}bool": lambda loader, node: node.value.lower() == "true",
    f"{_TAG}int": _Loader.number,
    f"{_TAG}float": lambda loader, node: float(node.value),
    f"{_TAG}str": _Loader.text,
    f"{_TAG}seq": _Loader.sequence,
    f"{_TAG}map": _Loader.mapping,
}


def _refuse(node: yaml.Node, problem: str) -> NoReturn:
    raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


def _check_nodes(node: yaml.Node, loader: _Loader, known: dict[int, int], above: set[int]) -> int:
    """Refuse tags, cycles and too many values. Returns the number of nodes, each alias counted as what it repeats."""
    if id(node) in above:
        _refuse(node, "it contains itself through an alias")
    if id(node) not in known:
        plain = node.style is None if isinstance(node, yaml.ScalarNode) else True
        if node.tag != loader.resolve(type(node), node.value, (plain, not plain)):
            _refuse(node, f"tags such as {short(node.tag)} are not read; write text in quotes")
        above.add(id(node))
        below = node.value if isinstance(node, yaml.SequenceNode) else []
        below = [each for pair in node.value for each in pair] if isinstance(node, yaml.MappingNode) else below
        known[id(node)] = 1 + sum(_check_nodes(each, loader, known, above) for each in below)
        above.remove(id(node))
    if known[id(node)] > LARGEST:
        _refuse(node, _TOO_MANY)
    return known[id(node)]
