"""Does what runs.py is asked for."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from repro.listing.board import board, comma_separated
from repro.listing.filters import chosen
from repro.listing.folder import runs
from repro.listing.found import Found
from repro.tables.command_line import repeated, say
from repro.tables.reading import Reading
from seval.errors import ConfigError
from seval.files import replace
from seval.ids import whole


def carry_out(args: argparse.Namespace) -> int:
    """Do what the command line asks for; returns the exit code."""
    output = Path("runs" if args.output_dir is None else args.output_dir)
    reading = Reading(args.split, args.network, args.offset, protocol=args.protocol)
    if args.output_dir is not None and not output.is_dir():
        raise ConfigError(f"there is no folder {output}; --output-dir names one that holds the folders of runs")
    if args.command in ("list", "csv"):
        return _list(args, output, reading)
    asked = whole(args.words, output)
    if args.command == "rm":
        from repro.listing.removal import remove

        return remove(asked, output, args.yes)
    if args.command == "curves":
        from repro.listing.pictures import draw

        say(*draw([output / id for id in asked], reading, args.out or Path("curves.png")))
        return 0
    from repro.listing.card import card
    from repro.listing.comparison import comparison

    everything = runs(output, reading)
    found = [next(run for run in everything if run.id == id) for id in asked]
    if args.command == "show":
        say("\n\n".join(card(run, everything, reading) for run in found))
    elif len(found) < 2:
        raise ConfigError(f"both are run {asked[0]}; diff takes two different ones")
    else:
        one, other = found
        say(comparison(one, other, reading))
    return _damaged(found)


def _list(args: argparse.Namespace, output: Path, reading: Reading) -> int:
    fits = chosen(args.words)
    known = runs(output, reading)
    found = [run for run in known if fits(run)]
    if args.command == "csv":
        text = comma_separated(found)
        if args.out:
            replace(args.out, text.encode("utf-8", "surrogateescape"))
            say(f"{len(found)} run{'' if len(found) == 1 else 's'}: {args.out}")
        else:
            say(text.rstrip("\n"))
    elif found:
        say(board(found, reading))
    elif known:
        say(f"none of the {len(known)} runs in {output} fits {' '.join(args.words)}")
    else:
        say(f"no runs in {output} yet; these train some:", f"  {repeated('submit', _elsewhere(args))}")
    return _damaged(found)


def _elsewhere(args: argparse.Namespace) -> list[str]:
    return ["--table", "demo", *([] if args.output_dir is None else ["--output-dir", args.output_dir])]


def _damaged(found: Sequence[Found]) -> int:
    return 2 if any(run.broken for run in found) else 0
