"""Make ROOT/NAME.h5 from the raw files of a data set or from your own images, or check an existing file."""

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

from repro.prepare_own import EXAMPLES, FORMS, is_valid, prepare_own, say_set
from repro.tables.command_line import Parser, named, reported, say
from seval.data.hdf5 import data_file, missing, read, verify, write
from seval.data.partial import abandon
from seval.data.sources import SOURCES, Source
from seval.errors import ConfigError, DamagedData, DataError

_EXAMPLES = f"""examples:
  python repro/prepare.py cifar10 --download           fetch CIFAR-10 into data/raw and write data/cifar10.h5
  python repro/prepare.py cifar10 --raw ~/downloads    from cifar-10-python.tar.gz, or its unpacked folder, in there
  python repro/prepare.py fashion_mnist                from data/raw or the Debian package dataset-fashion-mnist
  python repro/prepare.py stl10 --download             an interrupted download resumes where it stopped
  python repro/prepare.py small_imagenet127            from data/imagenet; the files that belong there are listed below
  python repro/prepare.py semi_aves                    from data/semi_fgvc
  python repro/prepare.py tiny --verify                check every checksum of data/tiny.h5
  python repro/prepare.py tiny --show tiny.png         a picture of its views and of the class counts of its splits

your own images (`prepare.py folder --help` has the options):
{EXAMPLES}
  python repro/prepare.py birds --table birds.yaml     a table for submit.py, with settings that fit the set

raw files:
""" + "\n".join(f"  {name:21} {source.files}" for name, source in SOURCES.items())
_EXAMPLES += "\n" + "\n".join(f"  {form:21} {files}" for form, files in FORMS.items())
_EXAMPLES += "".join(f"\n\n{name}: {source.closed}" for name, source in SOURCES.items() if source.closed)


def main(argv: Sequence[str] | None = None) -> int:
    """0 if there is a valid file at the end, else 2 and one line on standard error; 130 after Ctrl-C."""
    words = sys.argv[1:] if argv is None else argv
    try:
        return reported(lambda: prepare_own(words) if words[:1] and words[0] in FORMS else _do(words))
    finally:
        abandon()


def _do(argv: Sequence[str]) -> int:
    args = _parser().parse_args(argv)
    path = data_file(args.name, args.root)
    if args.verify:
        say_set(path, verify(path), "is valid")
    elif args.show:
        _show(args.name, path, args.show)
    elif args.table:
        _table(args)
    elif args.name not in SOURCES:
        _own(path)
    elif args.force or not is_valid(path, "nothing to do"):
        path = data_file(args.name, args.root, written=True)
        _prepare(path, SOURCES[args.name], args.raw, args.download)
    return 0


def _own(path: Path) -> None:
    """A set of the user's own is only made by a form. Raises `DataError` unless it is there and valid."""
    if not os.path.exists(path):
        raise DataError(missing(path))
    how = f"prepare.py folder, csv or npz with --name {path.stem} --force"
    try:
        say_set(path, verify(path), f"is there already and valid; {how} writes it again")
    except DamagedData as error:
        raise DataError(f"{error}, that is {how}") from None


def _parser() -> argparse.ArgumentParser:
    parser = Parser(description=__doc__, epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "name", metavar="NAME", type=_name, help=f"the set: {', '.join(SOURCES)}, or the name of your own"
    )
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
    parser.add_argument(
        "--table", metavar="FILE", type=Path, help="only write a table of Supervised, FixMatch and SEVAL on your set"
    )
    parser.add_argument(
        "--device", choices=("cpu", "gpu"), help="what the runs of --table will train on (default: what is here)"
    )
    parser.add_argument("--force", action="store_true", help="write the file again, even if it is valid")
    return parser


def _name(text: str) -> str:
    if not named(text).replace("_", "").replace("-", "").isalnum():
        raise argparse.ArgumentTypeError(f"{text!r} is the name of no set, but of a file; --root names the folder")
    return text


def _show(name: str, path: Path, picture: Path) -> None:
    from repro.contact_sheet import draw  # imports PyTorch, which is slow and which preparing a set does not need

    try:
        shown = draw(name, path.parent, picture)
    except ImportError as error:
        raise ConfigError(f"{error}; pip install '.[report]' installs what pictures need") from None
    say(f"{picture}: views of {len(shown)} classes of {path}, and the class counts of its splits for seed 0")


def _table(args: argparse.Namespace) -> None:
    from repro.tables.own import write_table  # these import PyTorch
    from seval.build import device

    gpu = args.device == "gpu" if args.device else device(0).type == "cuda"
    say(*write_table(args.name, args.root, args.table, gpu, args.force))


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
    say_set(path, read(path, in_blocks=True), "is ready")


if __name__ == "__main__":
    end_at_once(abandon)
    sys.exit(main())
