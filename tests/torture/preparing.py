"""prepare.py: every file call fails, is killed or interrupted; no file is ever half-written or wrong."""

from __future__ import annotations

import signal
from functools import partial
from itertools import product
from pathlib import Path

from seval.data.hdf5 import read
from tests.data.test_sources_fashion_mnist import write_fashion
from tests.settings import ROOT
from tests.torture import small
from tests.torture.lab import Lab
from tests.torture.shim import READS, WRITES, Attempt, Fault
from tests.torture.table import Row
from tests.torture.training import ERRORS, MOVING, span

NAME = "fashion_mnist"


class Preparing:
    """A raw set in `raw`, the folder of prepared sets in `root`, and what the prepared file must be."""

    def __init__(self, lab: Lab, count: int = 1000) -> None:
        self.lab, self.raw, self.root = lab, lab.folder / "raw", lab.folder / "root"
        write_fashion(self.raw, read(ROOT / "data" / "tiny.h5"), count)
        self.file = self.root / f"{NAME}.h5"
        small.clear(self.root)
        assert self.run().code == 0
        self.whole = self.file.read_bytes()

    def run(self, fault: Fault | None = None, *more: str, root: Path | None = None, **facts) -> Attempt:
        words = [NAME, "--raw", self.raw, "--root", root or self.root, *more]
        return self.lab.zygote.attempt("repro.prepare", words, fault, **facts)

    def calls(self, *more: str, kinds: int = WRITES, folder: Path | None = None) -> tuple[str, ...]:
        self.put(bool(more))
        return self.run(Fault(folder or self.root, kinds=kinds), *more).calls

    def put(self, there: bool) -> None:
        """The folder before an attempt: empty, or with a valid file."""
        small.clear(self.root)
        if there:
            self.file.write_bytes(self.whole)

    def problems(self, done: Attempt, codes: tuple[int, ...], *more: str, root: Path | None = None, tidy: bool = True):
        """What is wrong after an attempt, and after the same command with nothing in its way.

        `tidy`: whether the attempt could remove what it had begun.
        """
        root, existed = root or self.root, "--force" in more
        file = root / self.file.name
        found = small.manners(done, codes)
        left = [path.name for path in root.iterdir() if path != file]
        if left and tidy and done.code is not None and done.code >= 0:
            found.append(f"left behind after exit code {done.code}: {len(left)} temporary file")
        if file.exists() and file.read_bytes() != self.whole:
            found.append(f"a damaged file after exit code {done.code}")
        if not file.exists() and (existed or not done.code):
            found.append(f"no file after exit code {done.code}")
        again = self.run(None, *more, root=root)
        found += [f"again: {each}" for each in small.manners(again, (0,))]
        if not file.exists() or file.read_bytes() != self.whole:
            found.append("again: no whole file")
        if [path for path in root.iterdir() if path != file]:
            found.append("again: a temporary file is left over")
        return found


def kills(lab: Lab) -> Row:
    """kill -9 and Ctrl-C at each call, torn writes; into an empty folder, and over a valid file."""
    prepare, row, plan = Preparing(lab), Row("prepare.py: kill -9 and Ctrl-C at each file call, torn writes"), []
    for more in ((), ("--force",)):
        calls = prepare.calls(*more)
        for n in span(calls):
            plan += [(more, Fault(prepare.root, n)), (more, Fault(prepare.root, n, "raise", signal.SIGINT))]
            plan += [(more, Fault(prepare.root, n, "tear"))] * (calls[n - 1].split()[0] in MOVING)
    for more, fault in lab.some("prepare kills", plan, 30):
        prepare.put(bool(more))
        done = prepare.run(fault, *more)
        codes = (-9,) if fault.action != "raise" else (130,)
        problems = prepare.problems(done, codes if done.fired else (0,), *more)
        row.judge(f"{' '.join(more)} {fault}", problems, done.fired)
    return row


def errors(lab: Lab) -> Row:
    """Reads of the raw files and writes that fail, once or from then on, and short ones."""
    prepare, row = Preparing(lab), Row("prepare.py: EIO, ENOSPC, EDQUOT, ESTALE, EACCES, EROFS, once and from then on")
    kinds = [(action, value) for action in ("fail", "fail from") for value in ERRORS] + [("short", 0)]
    plan = []
    for more in ((), ("--force",)):
        calls = prepare.calls(*more, kinds=READS | WRITES, folder=lab.folder)
        fault = partial(Fault, lab.folder, kinds=READS | WRITES)
        plan += [(more, fault(n, *kind)) for n, kind in product(span(calls), kinds)]
    for more, fault in lab.some("prepare errors", plan, 60, 900):
        prepare.put(bool(more))
        done = prepare.run(fault, *more)
        tidy = fault.action != "fail from" and not any("unlink" in call for call in done.calls[fault.at - 1 : fault.at])
        row.judge(f"{' '.join(more)} {fault}", prepare.problems(done, (0, 2), *more, tidy=tidy), done.fired)
    return row


CAMPAIGNS = (kills, errors)
