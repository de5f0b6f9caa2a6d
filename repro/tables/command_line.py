"""What the command lines of the scripts share: options, what is printed, and commands that can be pasted."""

from __future__ import annotations

import argparse
import difflib
import io
import os
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from repro.tables.interrupts import INTERRUPTED, below_the_sign
from seval.errors import ConfigError
from seval.files import read_yaml
from seval.keys import nearest
from seval.places import ROOT, called, found, spelled, started
from seval.text import printable, short, shown

#: The options that each script takes of another, besides --table, --all and --config.
_TAKEN = {
    "submit": ("rows", "columns", "seeds", "output_dir", "site", "cluster"),
    "status": ("rows", "columns", "seeds", "output_dir", "site"),
    "aggregate": ("output_dir",),
}


class Parser(argparse.ArgumentParser):
    """A command line whose mistakes are reported in one line, like every other bad input.

    An option that is given again adds to its list; of one that takes a single value, the two must agree.
    """

    def __init__(self, **options: Any) -> None:
        command = [*started(), *sys.argv[1:2]] if started() else []
        super().__init__(**({"prog": " ".join(command)} if command else {}), **options)
        self.register("action", None, _Store)

    def format_help(self) -> str:
        return spelled(super().format_help())

    def error(self, message: str) -> NoReturn:
        option = re.match(r"unrecognized arguments: (--[^\s=]+)[\s=]?(\S*)", message)
        hint = option and self._meant(option[1], option[2] or "VALUE")
        raise ConfigError(f"{message}{hint or ''} (--help has examples)")

    def _meant(self, word: str, value: str) -> str:
        """What to write instead of an option that is not one."""
        if near := difflib.get_close_matches(word[:100], self._option_string_actions, n=1, cutoff=0.7):
            return f"; did you mean {near[0]}?"
        return f"; write {key} {value}" if (key := nearest(word[2:])) else ""


class _Store(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, found: argparse.Namespace, given: Any, *_: object) -> None:
        before = getattr(found, self.dest)
        if before is not self.default and self.option_strings:
            if isinstance(before, list):
                given = [*before, *given]
            elif before != given:
                parser.error(f"{self.option_strings[0]} is given twice, as {short(before)} and as {short(given)}")
        setattr(found, self.dest, given)


def whole(text: str) -> int:
    """The number of a word of a command line, in plain decimal digits. Raises `ArgumentTypeError`."""
    if not re.fullmatch("[-+]?(0|[1-9][0-9]{0,17})", text):
        raise argparse.ArgumentTypeError(f"{short(text)} is no whole number in plain decimal digits")
    return int(text)


def named(text: str) -> str:
    """A name on a command line. Raises `ArgumentTypeError` for an empty one, which a shell makes of a missing value."""
    if not text.strip():
        raise argparse.ArgumentTypeError("it is empty, but must be a name")
    return text


def add_selection(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """--table, --all or --config, and the folder of the runs."""
    group = parser.add_mutually_exclusive_group(required=required)
    group.add_argument(
        "--table",
        nargs="+",
        type=named,
        metavar="NAME",
        help="files in paper_tables/ (2 is table2), or paths ending in .yaml",
    )
    group.add_argument("--all", action="store_true", help="every table of the paper")
    group.add_argument(
        "--config",
        type=named,
        metavar="FILE",
        help="a single configuration instead, followed by KEY VALUE pairs if needed",
    )
    parser.add_argument("--seeds", nargs="+", type=whole, default=(), help="these seeds instead of the table's")
    parser.add_argument(
        "--output-dir",
        metavar="DIR",
        help="folder that holds the folders of runs; OUTPUT_DIR after --config says the same (default: runs)",
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY VALUE", help="settings that override those of --config")


def add_narrowing(parser: argparse.ArgumentParser) -> None:
    """--rows and --columns."""
    parser.add_argument("--rows", nargs="+", default=(), help="only these rows")
    parser.add_argument("--columns", nargs="+", default=(), help="only these columns")


def is_open(args: argparse.Namespace) -> bool:
    """Whether the command line names nothing: it is about every table of which something is there."""
    return not (args.table or args.all or args.config)


def settled(args: argparse.Namespace) -> argparse.Namespace:
    """The command line, in which first words that are tables or a file mean what follows --table or --config."""
    while not args.all and not args.config and args.overrides and _is_table(args.overrides[0]):
        args.table = [*(args.table or ()), args.overrides.pop(0)]
    if is_open(args) and args.overrides and args.overrides[0].endswith((".yaml", ".yml")):
        args.config = args.overrides.pop(0)
    return args


def _is_table(word: str) -> bool:
    """Whether it is the name of a table, its number, or its file: there, unlike in a configuration, keys are small."""
    if word.endswith(".yaml"):
        content = read_yaml(path) if os.path.isfile(path := found(word)) else None
        return isinstance(content, dict) and any(key.islower() for key in content)
    return os.path.isfile(ROOT / "paper_tables" / f"{'table' * word.isdecimal()}{word}.yaml")


def command(script: str, args: argparse.Namespace, *more: str) -> str:
    """The line that calls `script` about what `args` are about, `more` being its further options; for a shell."""
    words = [word for name in ("table", "all", "config") for word in _option(name, getattr(args, name))]
    behind = any(word.startswith("-") for word in args.overrides)  # which argparse takes for options
    if not behind:
        words += args.overrides
    taken = (*_TAKEN[script], *(["seeds"] if args.config and script == "aggregate" else []))
    words += [word for name in taken for word in _option(name, getattr(args, name, None))]
    return repeated(script, [*words, *more, *(["--", *args.overrides] if behind else [])])


def list_of_runs(args: argparse.Namespace) -> str:
    """The line that lists every run in the caller's folder."""
    return repeated("runs", _option("output_dir", args.output_dir))


def repeated(script: str, words: Sequence[str]) -> str:
    """The line that calls a script with these words, as the caller called this one."""
    return shlex.join([*called(f"repro/{script}.py"), *words])


def _option(name: str, value: object) -> list[str]:
    """The words that give an option this value; none where it is not given."""
    option = f"--{name.replace('_', '-')}"
    if value is None or value is False or value == () or value == []:
        return []
    if value is True:
        return [option]
    given = [str(each) for each in value] if isinstance(value, list | tuple) else [str(value)]
    return [f"{option}={given[0]}"] if len(given) == 1 and given[0].startswith("-") else [option, *given]


def prepare_output() -> None:
    """Signs that the terminal's encoding lacks are shown as ?, not an error."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def say(*texts: object, error: bool = False) -> None:
    """Print, to standard error if it is one; no escape sequence of a name or a message reaches the terminal."""
    if not texts:
        return
    if error:
        print(*(shown(str(text)) for text in texts), sep="\n", file=sys.stderr, flush=True)
    else:
        print(*(printable(line) for text in texts for line in str(text).split("\n")), sep="\n", flush=True)


def reported(work: Callable[[], int]) -> int:
    """The exit code of `work`; an error is one line on standard error and 2, Ctrl-C is one line and 130."""
    prepare_output()
    try:
        return work()
    except BrokenPipeError:  # the reader, such as `head`, has closed the pipe
        drop_output()
        return 0
    except (ValueError, OSError, MemoryError) as error:
        say(f"error: {str(error) or type(error).__name__}", error=True)
        drop_output()
        return 2
    except KeyboardInterrupt:
        say(f"{below_the_sign()}interrupted", error=True)
        return INTERRUPTED


def performed(parse: Callable[[], argparse.Namespace], load: Callable[[], Callable[[argparse.Namespace], int]]) -> int:
    """The exit code of a command whose words are read before `load` imports its work, which takes seconds."""
    read: list[argparse.Namespace] = []
    if code := reported(lambda: read.append(parse()) or 0):
        return code
    work = load()  # where this fails, the hook of `end_at_once` says so
    return reported(lambda: work(*read))


def drop_output() -> None:
    """Where standard output takes nothing more, forget what it holds, so that the end of Python does not try again."""
    try:
        if sys.stdout:  # None where it is closed
            sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
