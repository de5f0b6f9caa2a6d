"""Prepare a stand-in for Small-ImageNet-127 in a separate process; print images per second and peak memory.

The stand-in has the official format; its images are those of data/tiny.h5, repeated. Run as
`python benchmarks/prepare.py [--images 200000] [--side 32] [--form python2]`. Needs disk space for twice the pixels.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
LIMIT = 2.0  # GiB


def main() -> int:
    """Return 0 if the memory stays below the limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200_000, help="training images, in ten batches")
    parser.add_argument("--side", type=int, default=32, choices=(32, 64))
    parser.add_argument("--form", default="python2", help="python2, npz, or a pickle protocol of Python 3")
    args = parser.parse_args()
    name, raw = ("small_imagenet127", "imagenet") if args.side == 32 else ("small_imagenet127_64", "imagenet64")
    with tempfile.TemporaryDirectory(dir=ROOT / "data") as folder:
        # Also in a separate process: memory that this process held before it starts the next would count for that.
        writer = multiprocessing.get_context("spawn").Process(
            target=stand_in, args=(Path(folder, raw), args.side, args.images // 10, args.form)
        )
        writer.start()
        writer.join()
        start = time.perf_counter()
        command = [sys.executable, str(ROOT / "repro" / "prepare.py"), name, "--root", folder]
        _, status, usage = os.wait4(subprocess.Popen(command).pid, 0)
        seconds = time.perf_counter() - start
    total, peak = args.images // 10 * 11, usage.ru_maxrss / 2**20
    print(f"{total} images of {args.side} px, {args.form}: {total / seconds:.0f} a second, {peak:.2f} GiB at most")
    return int(status != 0 or peak > LIMIT)


def stand_in(raw: Path, side: int, count: int, form: str) -> None:
    """Write eleven files of `count` images each."""
    sys.path.insert(0, str(ROOT))
    from seval.data.hdf5 import read
    from tests.standins import TINY, write_imagenet

    tiny = read(TINY)
    index = np.arange(11 * count) % len(tiny.train.labels)
    repeated = tiny.train._replace(images=tiny.train.images[index], labels=tiny.train.labels[index])
    write_imagenet(raw, tiny._replace(train=repeated), side, count, form)


if __name__ == "__main__":
    sys.exit(main())
