"""Make ROOT/NAME.h5 of your own images, given as folders, as a CSV list or as arrays."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

from repro.tables.command_line import Parser, named, repeated, say, whole
from seval.data.hdf5 import data_file, read, verify, write
from seval.data.image_set import ImageSet, class_counts
from seval.data.sources.own import Listing, Wishes
from seval.data.sources.own_csv import read_csv
from seval.data.sources.own_files import Files, read_folder
from seval.data.sources.own_inspect import Kept, inspect
from seval.data.sources.own_npz import read_arrays
from seval.data.sources.own_set import make
from seval.defaults import SET_ALIASES, SETS
from seval.errors import DamagedData, DataError
from seval.files import replace
from seval.text import printable, short

FORMS = {
    "folder": "--raw DIR, with train/CLASS/*, unlabeled/** and perhaps valid/CLASS/*, test/CLASS/*",
    "csv": "FILE, with the columns path, label (empty: unlabeled), split (train, valid, test, unlabeled)",
    "npz": "FILE, with train_images, train_labels, val_*, test_*, unlabeled_images and perhaps class_names",
}
EXAMPLES = """  python repro/prepare.py folder --raw ~/birds --name birds
  python repro/prepare.py folder --raw ~/birds --name birds --size 64 --test-portion 0.2
  python repro/prepare.py csv ~/scans/list.csv --name scans --license "CC BY 4.0"
  python repro/prepare.py npz ~/downloads/bloodmnist.npz --name bloodmnist"""
_SIDES = (8, 256)
_SHOWN = 20  # problems and classes on the screen


def prepare_own(argv: Sequence[str]) -> int:
    """0 once the set is there. Raises `DataError` for images and lists that cannot be used, and `OSError`."""
    args = parser_of(argv[0]).parse_args(argv[1:])
    path = data_file(args.name, args.root, written=True)
    if not args.force and is_valid(path, "--force writes it again"):
        return 0
    listing = _listing(argv[0], args)
    say(*listing.notes)
    if not listing.items and not listing.problems:
        raise DataError(f"there are no images in {args.raw or args.file}")
    kept = None
    if isinstance(listing.reader, Files):
        key = hashlib.sha256(json.dumps([str(listing.reader.base.resolve()), args.size]).encode()).hexdigest()
        kept = Kept(path.with_name(f".{path.name}.inspected"), key)
    seen, unreadable = inspect(listing.reader, listing.items, args.size, kept)
    _report([*listing.problems, *unreadable], path, args.skip_unreadable)
    sound = seen["size"] >= 0
    listing = listing._replace(items=[item for item, each in zip(listing.items, sound, strict=True) if each])
    wishes = Wishes(args.name, args.size, args.test_portion, args.allow_duplicates, args.license)
    images = make(listing, seen[sound], wishes, say)
    say(f"writing {path}")
    write(path, images)
    if kept:
        kept.remove()
    images = read(path, in_blocks=True)
    say_set(path, images, "is ready")
    _say_classes(images)
    root = ["--root", args.root] if args.root else []
    say("next, look at it:", "  " + repeated("prepare", [args.name, *root, "--show", f"{args.name}.png"]))
    return 0


def say_set(path: Path, images: ImageSet, state: str) -> None:
    """A line for the file, and one for each part."""
    say(f"{path} {state} ({path.stat().st_size / 1e6:.1f} MB)")
    counts = class_counts(images)
    for name, part in images.parts.items():
        of_classes = counts[name]
        labeled = f"of {len(of_classes)} classes, {min(of_classes)} to {max(of_classes)} per class"
        print(f"  {name}: {len(part.labels)} images {labeled if any(of_classes) else 'of unknown class'}")


def parser_of(form: str) -> Parser:
    """The command line of one form."""
    parser = Parser(
        prog=f"prepare.py {form}",
        description=f"{__doc__}\n\n{form}: {FORMS[form]}",
        epilog=f"examples:\n{EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if form != "folder":
        parser.add_argument("file", metavar="FILE", type=Path, help="the list or the arrays")
    if form != "npz":
        what = "folder of the parts" if form == "folder" else "folder that the paths begin in (default: that of FILE)"
        parser.add_argument("--raw", metavar="DIR", type=Path, required=form == "folder", help=what)
    parser.add_argument("--name", type=_name, required=True, help="the name of the set: a-z, 0-9, _ and -")
    parser.add_argument("--root", type=named, metavar="DIR", help="folder of the HDF5 files (default: data)")
    parser.add_argument(
        "--size",
        type=_side,
        metavar="PIXELS",
        help="store arrays of this side, whatever the aspect ratio (default: images of one size of at most 96 pixels "
        "as they are, all others as JPEG)",
    )
    parser.add_argument("--test-portion", type=_portion, default=0.0, metavar="P", help="draw test images, per class")
    parser.add_argument("--allow-duplicates", action="store_true", help="an image may be in train and in test")
    parser.add_argument("--skip-unreadable", action="store_true", help="leave out what cannot be used")
    parser.add_argument("--license", default="unknown", metavar="TEXT", help="of the images, for the file's attributes")
    parser.add_argument("--force", action="store_true", help="write the file again, even if it is valid")
    return parser


def _name(text: str) -> str:
    if text in (*SETS, *SET_ALIASES, *FORMS):
        raise argparse.ArgumentTypeError(f"{text!r} is the name of something else here; choose another")
    if not re.fullmatch("[a-z][a-z0-9_-]{0,63}", text):
        raise argparse.ArgumentTypeError(
            f"{short(text)} must begin with a-z and go on with a-z, 0-9, _ and -, at most 64 signs"
        )
    return text


def _side(text: str) -> int:
    if not _SIDES[0] <= (side := whole(text)) <= _SIDES[1]:
        raise argparse.ArgumentTypeError(f"{side} must lie in {_SIDES[0]}..{_SIDES[1]}")
    return side


def _portion(text: str) -> float:
    try:
        portion = float(text)
    except ValueError:
        portion = 0.0
    if not 0 < portion < 1:
        raise argparse.ArgumentTypeError(f"{short(text)} must lie between 0 and 1")
    return portion


def is_valid(path: Path, then: str) -> bool:
    """Whether the file need not be written; it must be where it is missing, and where damage was seen."""
    if not os.path.exists(path):
        return False
    try:
        say_set(path, verify(path), f"is there already and valid; {then}")
    except DamagedData as error:
        say(error, "writing it again")
        return False
    return True


def _listing(form: str, args: argparse.Namespace) -> Listing:
    if form == "folder":
        return read_folder(args.raw)
    return read_csv(args.file, args.raw) if form == "csv" else read_arrays(args.file)


def _report(problems: list[tuple[str, str]], path: Path, skip: bool) -> None:
    """What cannot be used: some of it on the screen, all of it in a file, and an error unless it is to be left out."""
    every = path.with_name(f"{path.stem}.unreadable.txt")
    if not problems:
        every.unlink(missing_ok=True)
        return
    lines = [printable(f"{where}: {reason}") for where, reason in problems]
    path.parent.mkdir(parents=True, exist_ok=True)
    replace(every, "\n".join([*lines, ""]).encode(errors="replace"))
    say(*lines[:_SHOWN], *[f"... and {len(lines) - _SHOWN} more"] * (len(lines) > _SHOWN))
    if not skip:
        raise DataError(
            f"{len(lines)} files cannot be used; {every} names them all; remove or repair them, "
            "or leave them out with --skip-unreadable"
        )
    say(f"left out {len(lines)} files; {every} names them all")


def _say_classes(images: ImageSet) -> None:
    """The class counts of each part; of many classes, the first and the last."""
    counts = class_counts(images)
    if (batch := images.train.batch) is not None:
        of_valid = [0] * images.num_classes
        for label in images.train.labels[batch == 2].tolist():
            of_valid[label] += 1
        counts["train"] = [all_ - valid for all_, valid in zip(counts["train"], of_valid, strict=True)]
        counts["valid"] = of_valid
    shown = {name: of for name, of in counts.items() if any(of)}
    chosen = list(range(images.num_classes))
    if len(chosen) > _SHOWN:
        chosen = [*chosen[: _SHOWN // 2], *chosen[-_SHOWN // 2 :]]
    say("  ".join([f"  {'class':30}", *(f"{name:>7}" for name in shown)]))
    for c in chosen:
        name = f"{c} {images.class_names[c]}"
        name = name if len(name) <= 30 else f"{name[:27]}..."
        say("  ".join([f"  {name:30}", *(f"{of[c]:7}" for of in shown.values())]))
        if len(chosen) < images.num_classes and c == _SHOWN // 2 - 1:
            say(f"  ... {images.num_classes - len(chosen)} more")
