"""Make ROOT/NAME.h5 from the raw files of a data set, or check an existing file."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout also works without being installed

from repro.tables.interrupts import end_at_once

if __name__ == "__main__":  # the imports below take a second
    end_at_once()

import argparse
import os
from collections.abc import Sequence

from repro.tables.command_line import Parser, named, reported, say
from seval.data.hdf5 import data_file, read, verify, write
from seval.data.image_set import ImageSet, class_counts
from seval.data.partial import abandon
from seval.data.sources import SOURCES, Source
from seval.errors import ConfigError, DamagedData, DataError

_EXAMPLES = """examples:
  python repro/prepare.py cifar10 --download           fetch CIFAR-10 into data/raw and write data/cifar10.h5
  python repro/prepare.py cifar10 --raw ~/downloads    from cifar-10-python.tar.gz, or its unpacked folder, in there
  python repro/prepare.py fashion_mnist                from data/raw or the Debian package dataset-fashion-mnist
  python repro/prepare.py stl10 --download             an interrupted download resumes where it stopped
  python repro/prepare.py small_imagenet127            from data/imagenet; the files that belong there are listed below
  python repro/prepare.py semi_aves                    from data/semi_fgvc
  python repro/prepare.py tiny --verify                check every checksum of data/tiny.h5
  python repro/prepare.py tiny --show tiny.png         a picture of its views and of the class counts of its splits

raw files:
""" + "\n".join(f"  {name:21} {source.files}" for name, source in SOURCES.items())
_EXAMPLES += "".join(f"\n\n{name}: {source.closed}" for name, source in SOURCES.items() if source.closed)


def main(argv: Sequence[str] | None = None) -> int:
    """0 if there is a valid file at the end, else 2 and one line on standard error; 130 after Ctrl-C."""
    try:
        return reported(lambda: _do(_parser().parse_args(argv)))
    finally:
        abandon()


def _do(args: argparse.Namespace) -> int:
    path, source = data_file(args.name, args.root), SOURCES[args.name]
    if args.verify:
        _say(path, verify(path), "is valid")
    elif args.show:
        _show(args.name, path, args.show)
    elif args.force or not _is_valid(path):
        _prepare(data_file(args.name, args.root, written=True), source, args.raw, args.download)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(description=__doc__, epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", metavar="NAME", choices=list(SOURCES), help=f"the set: {', '.join(SOURCES)}")
    parser.add_argument(
        "--root", type=named, metavar="DIR", help="folder of the HDF5 files (default: data, or SEVAL_DATA if set)"
    )
    parser.add_argument(
        "--raw",
        metavar="DIR",
        type=Path,
        help="folder of the raw files (default: that of a system package or of the published code, else ROOT/raw)",
    )
    parser.add_argument("--download", action="store_true", help="download raw files that are missing or damaged")
    parser.add_argument("--verify", action="store_true", help="only check the existing file, completely")
    parser.add_argument(
        "--show", metavar="PNG", type=Path, help="only draw views of each class and the class counts of the splits"
    )
    parser.add_argument("--force", action="store_true", help="write the file again, even if it is valid")
    return parser


def _show(name: str, path: Path, picture: Path) -> None:
    from repro.contact_sheet import draw  # imports PyTorch, which is slow and which preparing a set does not need

    try:
        shown = draw(name, path.parent, picture)
    except ImportError as error:
        raise ConfigError(f"{error}; pip install '.[report]' installs what pictures need") from None
    say(f"{picture}: views of {len(shown)} classes of {path}, and the class counts of its splits for seed 0")


def _is_valid(path: Path) -> bool:
    """Whether the file need not be written; it must be where it is missing, and where damage was seen."""
    if not os.path.exists(path):
        return False
    try:
        _say(path, verify(path), "is there already and valid; nothing to do")
    except DamagedData as error:
        say(error, "writing it again")
        return False
    return True


def _prepare(path: Path, source: Source, raw: Path | None, download: bool) -> None:
    usual = path.parent / source.folder
    packaged = next((folder for folder in (source.packaged, usual) if folder and folder.is_dir()), None)
    folder = raw or packaged or path.parent / "raw"
    say(f"reading {folder}")
    try:
        images = source.read(folder)
    except DataError as error:
        if not download or source.closed:
            raise
        folder = raw or path.parent / "raw"
        say(error, f"downloading into {folder}")
        source.download(folder)
        images = source.read(folder)
    if images.attributes["official"] is False:
        print("note: these raw files are not the published ones; the file's attribute `official` says so")
    say(f"writing {path}")
    write(path, images, source.compress)
    _say(path, read(path, in_blocks=True), "is ready")


def _say(path: Path, images: ImageSet, state: str) -> None:
    say(f"{path} {state} ({path.stat().st_size / 1e6:.1f} MB)")
    counts = class_counts(images)
    for name, part in images.parts.items():
        of_classes = counts[name]
        labeled = f"of {len(of_classes)} classes, {min(of_classes)} to {max(of_classes)} per class"
        print(f"  {name}: {len(part.labels)} images {labeled if any(of_classes) else 'of unknown class'}")


if __name__ == "__main__":
    end_at_once(abandon)
    sys.exit(main())
