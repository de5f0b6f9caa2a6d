"""A disk that fills during each command, at every size: exit code 2 and one line, and the next start succeeds."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.torture import small
from tests.torture.lab import Lab
from tests.torture.launching import Launching, Slurm
from tests.torture.preparing import Preparing
from tests.torture.shim import Attempt
from tests.torture.table import Row

PAGE = 4096
FULL = ("No space left", "File too large", "free")  # how a message says it


@dataclass
class Disk:
    """A disk of `size` bytes; where mounting is not allowed, a limit on the size of each file instead."""

    folder: Path
    size: int
    mounted: bool = False

    @property
    def limits(self) -> dict[str, int]:
        """For `attempt`."""
        return {} if self.mounted else {"file_size": self.size}

    def grow(self) -> None:
        if self.mounted:
            subprocess.run(["mount", "-o", "remount,size=256m", "tmpfs", str(self.folder)], check=True)


@contextmanager
def disk(folder: Path, size: int) -> Iterator[Disk]:
    """An empty disk, mounted at the folder if that is allowed."""
    made = Disk(small.clear(folder), size)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    made.mounted = os.geteuid() == 0 and not subprocess.run(command, capture_output=True).returncode
    try:
        yield made
    finally:
        if made.mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


def sizes(largest: int, count: int) -> list[int]:
    """From a page to a little more than the largest, in whole pages."""
    return sorted({max(1, round(k * largest * 1.1 / count / PAGE)) * PAGE for k in range(1, count + 1)})


def used(folder: Path) -> int:
    """Bytes in whole pages."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return sum(-(-path.stat().st_size // PAGE) * PAGE for path in files)


def filled(lab: Lab, row: Row, plan: list[int], codes: tuple[int, ...], work: Callable[[Disk, bool], Attempt], right):
    """Each size: `work`, then again with more room; `right` says what is wrong at the end."""
    for size in lab.some(row.campaign, plan, 4):
        with disk(lab.folder / "disk", size) as found:
            done = work(found, True)
            problems = small.manners(done, codes)
            if done.code and not any(word in done.err for word in FULL):
                problems.append(f"does not say that the disk is full: {done.last}")
            found.grow()
            again = work(found, False)
            problems += [f"again: {each}" for each in small.manners(again, (0,))]
            row.judge(f"{size} bytes", problems + right(found))
    return row


def prepare(lab: Lab) -> Row:
    """prepare.py into the disk."""
    preparing, row = Preparing(lab), Row("prepare.py: the disk fills")

    def work(disk: Disk, small_yet: bool) -> Attempt:
        return preparing.run(root=disk.folder, **(disk.limits if small_yet else {}))

    def right(disk: Disk) -> list[str]:
        files = {path.name: path.read_bytes() for path in disk.folder.iterdir()}
        return [] if files == {preparing.file.name: preparing.whole} else [f"again: there is {sorted(files)}"]

    return filled(lab, row, sizes(len(preparing.whole), 40), (0, 2), work, right)


def train(lab: Lab) -> Row:
    """main.py with its runs on the disk."""
    expected, _ = lab.trained()
    largest, row = used(lab.runs), Row("main.py: the disk fills")

    def work(disk: Disk, small_yet: bool) -> Attempt:
        words = small.words(lab.data, disk.folder)
        return lab.zygote.attempt("main", words, **(disk.limits if small_yet else {}))

    def right(disk: Disk) -> list[str]:
        found = small.state(disk.folder)
        names = [name for name in expected if not name.endswith("config.yaml")]  # which names the folder
        left = found.keys() - expected.keys()
        ends = ({name: each[name] for name in names if name in each} for each in (found, expected))
        return small.differences(*ends) + [f"again: {name} is left over" for name in left]

    return filled(lab, row, sizes(largest, 40), (0, 2), work, right)


def submit(lab: Lab) -> Row:
    """submit.py on a pretended SLURM, with its ledgers on the disk."""
    launch, pretended, row = Launching(lab), Slurm(lab), Row("submit.py: the disk fills")

    def work(disk: Disk, small_yet: bool) -> Attempt:
        if small_yet:
            pretended.fresh()
        lab.runs = disk.folder
        return launch.submit(env=pretended.env, **(disk.limits if small_yet else {}))

    def right(disk: Disk) -> list[str]:
        found = sorted(pretended.queued(disk.folder / "slurm").values())
        return [] if found == [1, 1, 1] else [f"again: not every run is queued once, but {found}"]

    return filled(lab, row, sizes(24 * PAGE, 24), (0, 1, 2), work, right)


def aggregate(lab: Lab) -> Row:
    """aggregate.py with its pages on the disk."""
    launch, row = Launching(lab), Row("aggregate.py: the disk fills")
    small.clear(lab.runs)
    assert launch.submit("--cluster", "debug").code == 0
    small.clear(launch.out)
    assert launch.aggregate().code == 0
    expected = {path.name: path.read_bytes() for path in launch.out.iterdir()}

    def work(disk: Disk, small_yet: bool) -> Attempt:
        return launch.aggregate(out=disk.folder, **(disk.limits if small_yet else {}))

    def right(disk: Disk) -> list[str]:
        found = {path.name: path.read_bytes() for path in disk.folder.iterdir()}
        return [] if found == expected else [f"again: {sorted(found)} are not the same files"]

    return filled(lab, row, sizes(5 * PAGE, 5), (0, 2), work, right)


CAMPAIGNS = (prepare, train, submit, aggregate)
