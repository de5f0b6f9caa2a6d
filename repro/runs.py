"""Find and look at runs: a list, one of them, two side by side, curves, a spreadsheet; and delete them."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout also works without being installed

from repro.tables.interrupts import end_at_once

if __name__ == "__main__":
    end_at_once()

import argparse
import difflib
from collections.abc import Callable, Sequence
from pathlib import Path

from repro.tables.command_line import Parser, performed
from repro.tables.reading import CHOICES, Reading
from seval.errors import ConfigError

EXAMPLES = """\
commands:
  list [FILTER ...]    a line for each run: name, what differs, steps, state, accuracy (also without the word list)
  show ID ...          settings, splits, every protocol, recall of every class, parents, log
  diff ID ID           settings that differ, and the numbers side by side
  curves ID ...        accuracy and loss over steps, of several runs in one picture
  csv [FILTER ...]     everything about each run, for a spreadsheet
  rm ID ...            delete runs; not those that others depend on, and not those that are being trained

An ID is any beginning of it that no other run has. A FILTER is KEY=VALUE or KEY!=VALUE, where KEY is id, method,
dataset, seed, state, code, finished, host, job, device or a key of main.py.

examples:
  python repro/runs.py                                       every run
  python repro/runs.py method=fixmatch SEED=1 state=done     only these
  python repro/runs.py BASE_LR=0.1 "method=*seval*"          the end of a key is enough; * is any text
  python repro/runs.py show 3f9a
  python repro/runs.py diff 3f9a b1d
  python repro/runs.py curves 3f9a b1d --out curves.svg
  python repro/runs.py csv dataset=tiny --out runs.csv
  python repro/runs.py rm 3f9a
"""
COMMANDS = ("list", "show", "diff", "curves", "csv", "rm")
#: The options that only some commands have.
_ONLY = {"out": ("curves", "csv"), "yes": ("rm",)}


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line: `command`, and its `words`. Raises `ConfigError` where it is wrong."""
    usage = "%(prog)s [COMMAND] [ID ... | FILTER ...] [OPTION ...]"
    parser = Parser(
        usage=usage, description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("words", nargs="*", metavar="COMMAND", help="one of those below, and what it is about")
    parser.add_argument("--output-dir", metavar="DIR", help="folder that holds the folders of runs (default: runs)")
    for key, choices in CHOICES.items():
        if key != "metric":
            default = Reading._field_defaults[key]
            parser.add_argument(
                f"--{key}", choices=choices, default=default, help=f"of the numbers (default: {default})"
            )
    parser.add_argument("--out", metavar="FILE", type=Path, help="curves: a PNG or SVG file; csv: the file")
    parser.add_argument("--yes", action="store_true", help="rm: do not ask")
    args = parser.parse_intermixed_args(argv)
    args.command = args.words.pop(0) if args.words and args.words[0] in COMMANDS else "list"
    for option, commands in _ONLY.items():
        if getattr(args, option) and args.command not in commands:
            parser.error(f"--{option} is for {' and '.join(commands)}, not for {args.command}")
    least, most = {"show": (1, None), "diff": (2, 2), "curves": (1, None), "rm": (1, None)}.get(args.command, (0, None))
    if len(args.words) < least or most and len(args.words) > most:
        parser.error(f"{args.command} takes {'two ids' if most else 'at least one id'}, not {len(args.words)}")
    if args.command == "list":
        _check_command(args.words)
    return args


def _check_command(words: Sequence[str]) -> None:
    """Words that are no filters were meant as a command, or as the id of a run to be shown."""
    for word in words:
        if "=" not in word:
            near = difflib.get_close_matches(word, COMMANDS, n=1)
            hint = f"did you mean {near[0]}?" if near else "to look at a run, write show before its id"
            raise ConfigError(
                f"{word!r} is neither a command ({', '.join(COMMANDS)}) nor a filter such as SEED=1; {hint}"
            )


def main(argv: Sequence[str] | None = None) -> int:
    """0; 2: bad input, or a record among the runs asked for that cannot be used; 130: interrupted."""
    return performed(lambda: parse(argv), _work)


def _work() -> Callable[[argparse.Namespace], int]:
    from repro.listing.commands import carry_out

    return carry_out


if __name__ == "__main__":
    sys.exit(main())
