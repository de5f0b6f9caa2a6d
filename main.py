"""Train one run from the command line."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # also where Python must not do it itself

from seval.options import add_uses, check_uses
from seval.places import ENVIRONMENT, spelled

EXAMPLES = """\
KEY VALUE pairs, also written KEY=VALUE or --key value, override the configuration file. seval/defaults.py explains
every key. Examples:

  python main.py --config-file configs/tiny/fixmatch.yaml SEED 1
  python main.py --config-file configs/cifar10/fixmatch_seval_load.yaml --with-prerequisites \\
      DATASET.CIFAR10.NUM_LABELED_HEAD 500 DATASET.CIFAR10.NUM_UNLABELED_HEAD 4000 SEED 79 GPU_ID 0
  python main.py --config-file configs/cifar10/fixmatch.yaml --dry-run
  python main.py --list-methods

If the run is already done, its results are printed. If it was interrupted, it resumes from its checkpoint.
SIGTERM, SIGUSR2 and Ctrl-C finish the current step, save a checkpoint and stop; a second Ctrl-C does not save.
Exit codes: 0 done; 2 bad input, or a file cannot be read or written; 3 training failed; 4 another process is training
this run; 75 stopped by SIGTERM or SIGUSR2; 130 stopped by Ctrl-C. After 75 and 130 the same command resumes the run.
"""


def main(argv: list[str] | None = None) -> int:
    """Parse the arguments, run and print the result; errors go to stderr in one line."""
    for stream, errors in ((sys.stdout, "replace"), (sys.stderr, "backslashreplace")):
        if hasattr(stream, "reconfigure"):  # what the locale cannot write is no reason to stop
            stream.reconfigure(errors=errors)
    args = _parse(argv)
    if sys.version_info < (3, 11):  # noqa: UP036 (any Python can be told to start this file)
        print(
            f"error: {sys.executable} is Python {sys.version.split()[0]}, not 3.11 or newer; {ENVIRONMENT}",
            file=sys.stderr,
        )
        return 2
    try:
        with _leaving_at_ctrl_c():
            if wrong := _wrong(args):
                print(f"error: {wrong}", file=sys.stderr)
                return 2
            from seval.command import command  # here, since it takes seconds, and --help should be fast
    except ImportError as error:
        if (error.name or "").startswith("seval"):  # a fault of this code, not of the environment
            raise
        from seval.errors import memory_short

        advice = "memory is short" if memory_short(error) else ENVIRONMENT
        print(f"error: {sys.executable} cannot run this ({error}); {advice}", file=sys.stderr)
        return 2
    except MemoryError:
        print("error: memory is short for the packages that this needs", file=sys.stderr)
        return 2
    return command(args)


def _wrong(args: argparse.Namespace) -> str:
    """What is wrong with the words that are no options; "" if nothing is."""
    from seval.keys import pairs
    from seval.text import shown

    try:
        pairs([] if args.list_methods else args.overrides)
    except ValueError as error:
        return shown(str(error))
    return ""


@contextmanager
def _leaving_at_ctrl_c() -> Iterator[None]:
    """Inside, Ctrl-C ends the process at once: an exception in the middle of an import can be lost or told twice."""

    def leave(number: int, frame: object) -> None:
        os.write(2, b"error: interrupted before the run began\n")
        os._exit(130)

    heard = threading.current_thread() is threading.main_thread()
    if not heard or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        words = message if len(message) <= 500 else f"{message[:450]} ... {message[-40:]}"
        self.exit(2, f"error: {words}; --help lists the options\n")


def _parse(argv: list[str] | None) -> argparse.Namespace:
    """The options; `overrides` are all other words, in their order."""
    parser = _Parser(
        usage=spelled("main.py --config-file FILE [OPTION ...] [KEY VALUE ...]"),
        description=__doc__,
        epilog=spelled(EXAMPLES),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--config-file",
        "--config",
        metavar="FILE",
        action="append",
        default=[],
        help="YAML file; overrides the defaults and its _BASE_ files",
    )
    parser.add_argument("--eval-only", action="store_true", help="evaluate the checkpoint; do not train")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="fail if there is no checkpoint to resume from (without this option, a run that has none starts from "
        "step 0), and also resume a checkpoint that other code made",
    )
    parser.add_argument("--again", action="store_true", help="move what is there to OUTPUT_DIR/.old, and start anew")
    parser.add_argument("--with-prerequisites", action="store_true", help="first do the runs that this run depends on")
    parser.add_argument("--dry-run", action="store_true", help="print id, folder, splits, prerequisites; do not train")
    parser.add_argument("--list-methods", action="store_true", help="print every method with its policy and source")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    add_uses(parser)
    args, words = parser.parse_known_args(argv)
    words = [word for word in words if word != "--"]
    if words and (words[0].endswith((".yaml", ".yml")) or os.path.isfile(words[0])):
        args.config_file.append(words.pop(0))
    if len(args.config_file) > 1:
        parser.error(f"one --config-file is read, not {len(args.config_file)}: name the others in its _BASE_")
    args.config_file = args.config_file[0] if args.config_file else None
    check_uses(parser, args)
    if not (args.config_file or args.run or args.list_methods or words):
        parser.print_usage(sys.stderr)
        parser.error("choose a --config-file, such as configs/tiny/fixmatch.yaml")
    args.overrides = words
    return args


if __name__ == "__main__":
    sys.exit(main())
