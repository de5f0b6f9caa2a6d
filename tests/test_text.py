"""Text becomes a value or one short error, whatever it is."""

from __future__ import annotations

import random
import string
import time

import pytest
import yaml

from seval.errors import ConfigError
from seval.text import json_value, literal, printable, short, shown, yaml_value
from tests.settings import ROOT

DEEP = ["[" * 100_000, "[" * 100_000 + "]" * 100_000, "-" * 3_000 + "1", "{" * 5_000, "not " * 3_000 + "1"]
HUGE = ["9" * 5_000, "9" * 30, "-" + "9" * 30, f"[{'9' * 30}]", "x" * 30_000]
CODE = ["open('x')", "__import__('os')", "x", "1 if 1 else 2", "...", "b'x'", "{1, 2}", "1+2j", "{[1]: 2}", "{[]: 1}"]


@pytest.mark.parametrize("text", [*DEEP, *HUGE, *CODE, "", "010", "\x00", "'a\x00'", "[1", "{1: {2: [3]}, 'a': x}"])
def test_what_is_no_plain_literal_is_a_short_error(text):
    with pytest.raises(ValueError, match="is no value|characters") as error:
        literal(text)
    assert len(str(error.value)) < 700 and "\n" not in str(error.value)


@pytest.mark.parametrize("value", [1, -1, 0.5, True, None, "é", [1, (2.0, "x")], {"a": [1], 2: None}, 10**18 - 1])
def test_a_literal_is_read_back(value):
    assert literal(repr(value)) == value


def test_any_text_is_a_value_or_an_error_of_ours():
    draw = random.Random(1)
    alphabet = string.printable + "[]{}:,-'\"&*!|>%@#?~\x00\x1b\u2028é" * 3
    for _ in range(4_000):
        text = "".join(draw.choices(alphabet, k=draw.randrange(25)))
        for read, expected in (
            (literal, ValueError),
            (json_value, ValueError),
            (lambda t: yaml_value(t, "f"), ConfigError),
        ):
            try:
                read(text)
            except expected as error:
                assert "\n" not in str(error)


@pytest.mark.parametrize(
    "text", [*DEEP[:2], "NaN", "[Infinity]", '{"a": 1, "a": 2}', b"\xff", "{} {}", "9" * 5_000, ""]
)
def test_json_is_strict(text):
    with pytest.raises(ValueError):
        json_value(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\nb: {x: 1,\n  x: 2}", r"line 3: 'x' is given twice"),
        ("a: 010", "in quotes"),
        ("a: 1:30", "in quotes"),
        ("a: 0x10", "in quotes"),
        ("a: 1_000", "in quotes"),
        ("a: .inf", "in quotes"),
        ("a: no", "true or false, or in quotes"),
        ("a: Off", "true or false, or in quotes"),
        ("a: " + "9" * 30, "digits"),
        ("a: !!python/object:os.system x", "tags"),
        ("a: !!int '0x10'", "tags"),
        ("a: !!set {x}", "tags"),
        ("a: !mine x", "tags"),
        ("? [1]\n: 2", "a name must be text"),
        ("&a {b: *a}", "contains itself"),
        ("a: *b", "undefined alias"),
        ("a: 1\n---\nb: 2", "single document"),
        ("a: \x00", "not allowed"),
        (DEEP[0], "nested too deeply"),
    ],
)
def test_yaml_refuses_what_it_would_read_as_something_else(text, words):
    with pytest.raises(ConfigError, match=rf"cannot read f\.yaml.*{words}") as error:
        yaml_value(text, "f.yaml")
    assert "\n" not in str(error.value)


def test_yaml_takes_what_means_one_thing():
    text = (
        "a: 5\nb: -0.5\nc: true\nd: ~\ne: '010'\nf: 2026-12-01T00:00:00\ng: [1, x]\n1: {on: 'no'}\nh: 1.5e3\ni: 1e3\n"
    )
    assert yaml_value(text, "f") == {
        **{"a": 5, "b": -0.5, "c": True, "d": None, "e": "010", "f": "2026-12-01T00:00:00", "g": [1, "x"]},
        **{"1": {"on": "no"}, "h": 1500.0, "i": "1e3"},
    }
    assert yaml_value("# nothing", "f") is None


def test_every_file_of_the_repository_reads_as_plain_yaml_does():
    def named(value: object) -> object:
        if isinstance(value, dict):
            return {str(key): named(inner) for key, inner in value.items()}
        return [named(inner) for inner in value] if isinstance(value, list) else value

    files = [path for folder in ("configs", "paper_tables", "slurm") for path in ROOT.glob(f"{folder}/**/*.yaml")]
    assert len(files) > 100
    for path in files:
        text = path.read_text(encoding="utf-8")
        assert yaml_value(text, path.name) == named(yaml.safe_load(text)), path


def test_a_list_that_repeats_itself_is_refused_at_once():
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
    bomb += "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))
    begun = time.process_time()
    with pytest.raises(ConfigError, match="more than 100000 values"):
        yaml_value(bomb, "f")
    assert time.process_time() - begun < 5


@pytest.mark.parametrize("text", [f"a: [{'1,' * 3_000_000}1]", "".join(f"k{i}: 1\n" for i in range(500_000))])
def test_a_file_of_too_many_values_is_refused_before_it_is_read(text):
    begun = time.process_time()
    with pytest.raises(ConfigError, match="line .* more than 100000 values"):
        yaml_value(text, "f")
    assert time.process_time() - begun < 15  # all of it would take minutes


def test_a_message_has_lines_that_a_terminal_can_show_and_commands_that_are_whole():
    command = f"  python main.py {'A' * 9_000}"
    lines = shown(f"error: {'B' * 9_000}\x1b[31m: File name too long\n{command}").split("\n")
    assert len(lines[0]) <= 1_000 and lines[0].isprintable() and lines[1:] == [command]
    assert lines[0].startswith("error: BBB") and lines[0].endswith("BBB\\x1b[31m: File name too long")


def test_values_in_messages_are_bounded():
    nested: list = [1]
    for _ in range(40):
        nested = [nested] * 9
    for value in (nested, "x" * 10**6, 10**5_000, {"a": nested}, {i: i for i in range(1_000)}, [nested, nested]):
        assert len(short(value)) <= 120
    assert short([1, "a", {"b": 2.5}]) == "[1, 'a', {'b': 2.5}]"


def test_printable_text_shows_what_a_terminal_would_obey():
    assert printable("é → ✓") == "é → ✓"
    assert printable("a\x1b[31mb\nc\td\u202e") == r"a\x1b[31mb\nc\td\u202e"
