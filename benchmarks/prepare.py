"""Prepare a stand-in for Small-ImageNet-127 in a separate process; print images per second and peak memory.

The stand-in has the official format; its images are those of data/tiny.h5, repeated. Run as
`python benchmarks/prepare.py [--images 200000] [--side 32] [--form python2]`. Needs disk space for twice the pixels.

With `--form jpeg` it is a folder of a user's own JPEG files instead (`--images 100000` are 0.5 GB), prepared once
undisturbed, and once interrupted in the middle and resumed: the two files must be equal.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import os
import signal
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
    parser.add_argument("--form", default="python2", help="python2, npz, a pickle protocol of Python 3, or jpeg")
    args = parser.parse_args()
    if args.form == "jpeg":
        return own_jpegs(args.images)
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


def own_jpegs(count: int) -> int:
    """Return 0 if the memory stays below the limit and an interruption changes nothing."""
    with tempfile.TemporaryDirectory(dir=ROOT / "data") as folder:
        raw, path = Path(folder, "raw"), Path(folder, "own.h5")
        writer = multiprocessing.get_context("spawn").Process(target=write_jpegs, args=(raw, count))
        writer.start()
        writer.join()
        command = [sys.executable, str(ROOT / "repro" / "prepare.py"), "folder", "--raw", str(raw)]
        command += ["--name", "own", "--root", folder]
        undisturbed = _timed("undisturbed", command, count)
        content = hashlib.sha256(path.read_bytes()).digest()
        path.unlink()
        _timed("interrupted", command, count, undisturbed[0] / 3)
        resumed = _timed("resumed", command, count)
        same = hashlib.sha256(path.read_bytes()).digest() == content
    print("the same file" if same else "ANOTHER FILE")
    return int(not same or max(undisturbed[1], resumed[1]) > LIMIT)


def _timed(what: str, command: list[str], count: int, until: float = 0.0) -> tuple[float, float]:
    """Seconds and GiB of a command, which gets a Ctrl-C after `until` seconds if that is not 0."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    if until:
        time.sleep(until)
        process.send_signal(signal.SIGINT)
    _, _, usage = os.wait4(process.pid, 0)
    seconds, peak = time.perf_counter() - start, usage.ru_maxrss / 2**20
    print(f"{count} JPEG files, {what}: {seconds:.0f} s, {peak:.2f} GiB at most", flush=True)
    return seconds, peak


def write_jpegs(raw: Path, count: int) -> None:
    """Smooth images of about 120 pixels a side: a tenth for testing, a third labeled, of 97 classes."""
    from PIL import Image

    colors = np.random.default_rng(0).integers(256, size=(count, 6, 6, 3), dtype=np.uint8)
    for i, color in enumerate(colors):
        part = f"test/{i % 97}" if i % 10 == 0 else f"train/{i % 97}" if i % 10 < 4 else "unlabeled"
        (raw / part).mkdir(parents=True, exist_ok=True)
        size = 100 + i % 57, 100 + i % 43
        Image.fromarray(color).resize(size, Image.Resampling.BICUBIC).save(raw / part / f"{i}.jpg", quality=85)


if __name__ == "__main__":
    sys.exit(main())
