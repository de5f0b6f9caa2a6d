"""Make ROOT/NAME.h5 out of a set's raw files, or check the one that is there."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

try:
    import seval  # noqa: F401
except ModuleNotFoundError:  # run from a checkout that is not installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from seval.data.prepare import DataError, ImageSet, class_counts, data_file, read, verify, write
from seval.data.sources import SOURCES, Source

_EXAMPLES = """examples:
  python repro/prepare.py cifar10 --download           fetch CIFAR-10 into data/raw and write data/cifar10.h5
  python repro/prepare.py cifar10 --raw ~/downloads    from cifar-10-python.tar.gz, or its unpacked folder, in there
  python repro/prepare.py fashion_mnist                from data/raw or the Debian package dataset-fashion-mnist
  python repro/prepare.py tiny --verify                check every checksum of data/tiny.h5

raw files:
""" + "\n".join(f"  {name:14} {source.files}" for name, source in SOURCES.items())


def main(argv: list[str] | None = None) -> int:
    """0 where a valid file is in place at the end, else 2 and one line on standard error."""
    args = _parser().parse_args(argv)
    path, source = data_file(args.name, args.root), SOURCES[args.name]
    try:
        if args.verify:
            _say(path, verify(path), "is valid")
        elif args.force or not _is_valid(path):
            _prepare(path, source, args.raw, args.download)
    except (DataError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", metavar="NAME", choices=list(SOURCES), help=f"the set: {', '.join(SOURCES)}")
    parser.add_argument("--root", metavar="DIR", help="folder of the HDF5 files (default: data, or SEVAL_DATA if set)")
    parser.add_argument(
        "--raw",
        metavar="DIR",
        type=Path,
        help="folder of the raw files (default: that of the system's package, else ROOT/raw)",
    )
    parser.add_argument("--download", action="store_true", help="fetch raw files that cannot be used as they are")
    parser.add_argument("--verify", action="store_true", help="only check the file that is there, in full")
    parser.add_argument("--force", action="store_true", help="write the file anew, even if it is valid")
    return parser


def _is_valid(path: Path) -> bool:
    if not path.exists():
        return False
    try:
        _say(path, verify(path), "is there already and valid; nothing to do")
    except DataError as error:
        print(f"{error}\nwriting it again", flush=True)
        return False
    return True


def _prepare(path: Path, source: Source, raw: Path | None, download: bool) -> None:
    packaged = source.packaged if source.packaged and source.packaged.is_dir() else None
    folder = raw or packaged or path.parent / "raw"
    print(f"reading {folder}", flush=True)
    try:
        images = source.read(folder)
    except DataError as error:
        if not download:
            raise
        folder = raw or path.parent / "raw"
        print(f"{error}\ndownloading into {folder}", flush=True)
        source.download(folder)
        images = source.read(folder)
    if not images.attributes["official"]:
        print("note: these raw files are not the published ones; the file's attribute `official` says so")
    print(f"writing {path}", flush=True)
    write(path, images, source.compress)
    _say(path, read(path), "is ready")


def _say(path: Path, images: ImageSet, state: str) -> None:
    print(f"{path} {state} ({path.stat().st_size / 1e6:.1f} MB)")
    for part, counts in class_counts(images).items():
        print(f"  {part}: {sum(counts)} images of {len(counts)} classes, {min(counts)} to {max(counts)} per class")


if __name__ == "__main__":
    sys.exit(main())
