"""The command `seval`, also called as `python -m seval`: its first word chooses a script, which gets the others."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Sequence
from importlib import import_module

from seval import __version__
from seval.places import ROOT, started

#: By word: the module of the script, the option that the word stands for, what it does, an example.
COMMANDS = {
    "train": ("main", "", "train a run, or resume it", "configs/tiny/fixmatch.yaml SEED 1"),
    "predict": ("main", "--predict", "label images by a run", "photos/ --run 3f9a"),
    "export": ("main", "--export", "write the network of a run to one file", "model.pt2 --run 3f9a"),
    "methods": ("main", "--list-methods", "list the methods", ""),
    "prepare": ("repro.prepare", "", "make or check the file of a data set", "cifar10 --download"),
    "submit": ("repro.submit", "", "do the missing runs of a table, on SLURM or here", "--table demo"),
    "status": ("repro.status", "", "how far a table is", "--table demo"),
    "aggregate": ("repro.aggregate", "", "write a table from the records of its runs", "--table demo"),
    "report": ("repro.report", "", "write a page about tables and their runs", "--table demo"),
    "runs": ("repro.runs", "", "find, compare, draw and delete runs", "method=fixmatch"),
}


def main(words: Sequence[str] | None = None) -> int:
    """Call the script that the first word names. Returns its exit code; 2 for a word that names none."""
    word, *rest = [*(sys.argv[1:] if words is None else words)] or [""]
    if word in ("-h", "--help", "help", ""):
        print(_usage(), file=sys.stdout if word else sys.stderr)
        return 0 if word else 2
    if word in ("-V", "--version"):
        print(f"seval {__version__}")
        return 0
    if word not in COMMANDS:
        near = difflib.get_close_matches(word[:100], COMMANDS, n=1)
        train = f"write `{_name()} train` before it" if word.endswith((".yaml", ".yml")) else ""
        hint = f"did you mean {near[0]}?" if near else train or f"commands are {', '.join(COMMANDS)}"
        print(f"error: unknown command {word[:100]!r}; {hint}", file=sys.stderr)
        return 2
    module, option, *_ = COMMANDS[word]
    sys.path.insert(0, str(ROOT))  # where the scripts are
    if module != "main":  # which has its own way to end at Ctrl-C
        import_module("repro.tables.interrupts").end_at_once()
    return import_module(module).main(_with(option, rest))


def _with(option: str, words: list[str]) -> list[str]:
    """The words after the option that takes them: before the first one that is not the value of another option."""
    if not option or words in (["-h"], ["--help"]):
        return words
    takes = [False, *(word.startswith("-") and "=" not in word for word in words)]
    free = (i for i, word in enumerate(words) if not word.startswith("-") and not takes[i])
    place = next(free, len(words))
    return [*words[:place], option, *words[place:]]


def _name() -> str:
    return " ".join(started()) or "seval"


def _usage() -> str:
    width = max(len(f"{word} {example}") for word, (*_, example) in COMMANDS.items())
    examples = ((f"{word} {example}", about) for word, (_, _, about, example) in COMMANDS.items())
    lines = "\n".join(f"  {_name()} {example:{width}}   {about}" for example, about in examples)
    return f"""usage: {_name()} COMMAND ...

SEVAL {__version__}: imbalanced semi-supervised learning.

commands, each with an example:
{lines}

COMMAND --help explains a command. Configurations and tables that are not below the current folder are those of
{ROOT}."""


if __name__ == "__main__":
    sys.exit(main())
