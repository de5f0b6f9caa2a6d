"""The commands that the scripts print, found in their output and read by the scripts' own parsers."""

from __future__ import annotations

import argparse
import re
import shlex

from repro import aggregate, prepare, runs, status, submit

MAINS = {
    "submit": submit.main,
    "status": status.main,
    "aggregate": aggregate.main,
    "prepare": prepare.main,
    "runs": runs.main,
}
PARSERS = {
    "submit": submit.parse,
    "status": status.parse,
    "aggregate": aggregate.parse,
    "runs": runs.parse,
    "prepare": lambda words: prepare._parser().parse_args(words),
}
#: A command is a line of its own, or code in Markdown.
_LINE = re.compile(r"^ *(?:\S*/)?python (\S*repro/\w+\.py.*)$", re.MULTILINE)
_CODE = re.compile(r"`python (repro/\w+\.py[^`]*)`")


def hints(text: str) -> list[tuple[str, list[str]]]:
    """(script, words) of each command in what a script has printed; a script named in any other way is an error."""
    found = [*_LINE.findall(text), *_CODE.findall(_LINE.sub("", text))]
    assert not re.search(r"\w+\.py\b", _CODE.sub("", _LINE.sub("", text))), text
    words = [shlex.split(each) for each in found]
    return [(re.search(r"(\w+)\.py$", script)[1], rest) for script, *rest in words]


def parsed(text: str) -> list[tuple[str, argparse.Namespace]]:
    """The same, read by the parser of each script."""
    return [(script, PARSERS[script](words)) for script, words in hints(text)]
