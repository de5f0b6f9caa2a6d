"""Damaged files: flipped bits, holes, truncations. A reader notices, or what it returns is what was written."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from repro.launch.failures import failure
from repro.launch.queue import Submission, submissions
from seval import record
from seval.claim import holder
from seval.data import hdf5
from seval.errors import SevalError
from tests.launch.fake_slurm import submission
from tests.standins import same as same_set
from tests.torture import small
from tests.torture.explore import explore, judged
from tests.torture.lab import Lab
from tests.torture.launching import Launching
from tests.torture.shim import Fault
from tests.torture.table import Row

KINDS = ("checkpoint.pt", "metrics.jsonl", "record.json", "artifacts.h5", "tiny.h5", "ledger", "claim", "failure.json")
HOLE = 512


def flip(rng: random.Random, content: bytes) -> bytes:
    place, bit = rng.randrange(len(content)), 1 << rng.randrange(8)
    return content[:place] + bytes([content[place] ^ bit]) + content[place + 1 :]


def hole(rng: random.Random, content: bytes) -> bytes:
    start = rng.randrange(max(1, len(content) - HOLE))
    return content[:start] + bytes(min(HOLE, len(content) - start)) + content[start + HOLE :]


def cut(rng: random.Random, content: bytes) -> bytes:
    return content[: rng.randrange(len(content))]


DAMAGES = (flip, hole, cut)


def reader(kind: str, path: Path, lab: tuple[Path, Path]) -> Callable[[], object]:
    """The function of the product that reads this kind of file."""
    if kind in ("record.json", "artifacts.h5"):
        first, second = small.chain(*lab)
        return first.record if kind == "record.json" else second.artifacts
    return {
        "checkpoint.pt": lambda: record.load_checkpoint(path),
        "metrics.jsonl": lambda: record.read_lines(path),
        "tiny.h5": lambda: hdf5.read(path),
        "ledger": lambda: submissions(path.parent),
        "claim": lambda: holder(path.parent),
        "failure.json": lambda: failure(path.parent),
    }[kind]


def accepted(kind: str, found: object, whole: object) -> str:
    """What is wrong with what a reader returned for a damaged file."""
    if kind in ("claim", "failure.json"):  # what is said there is for people, and for how long to wait
        return ""
    if kind == "metrics.jsonl":  # a killed process may have left the last line incomplete
        return "" if found == whole[: len(found)] else "other lines are believed"
    if kind == "tiny.h5":
        return "" if same_set(found, whole) else "another set is believed"
    return "" if small.same(found, whole) else "other content is believed"


def read_damaged(words: list[str]) -> int:
    """In a process of the zygote: damage a copy of one file `count` times, and read it."""
    kind, path, damage, count, data, runs = words
    content, read = Path(path).read_bytes(), reader(kind, Path(path), (Path(data), Path(runs)))
    whole, rng = read(), random.Random(f"{kind} {damage}")

    def cases() -> Iterator[tuple[str, Callable[[], object]]]:
        for k in range(int(count)):
            other = {each.__name__: each for each in DAMAGES}[damage](rng, content)
            while other == content:
                other = flip(rng, content)
            Path(path).write_bytes(other)
            yield f"{kind}, {damage} {k}", lambda: accepted(kind, read(), whole)
        Path(path).write_bytes(content)

    return explore(cases(), (SevalError,))


def readers(kind: str, lab: Lab) -> Row:
    """200 of each kind of damage of one file, read by the reader alone."""
    row = Row(f"damaged {kind}: bits, holes, truncations; the reader alone")
    lab.trained()
    run = small.chain(lab.data, lab.runs)[0]
    path = run.folder / kind
    if kind == "ledger":
        made: Submission = submission("seval-0a1b2c3d4e5f", [run.id, "2" * 10], ["3" * 10], needs={"3" * 10: run.id})
        path = made.write(lab.runs / "slurm")
    elif kind == "claim":
        path = next(run.folder.glob("claim.*"))
        words = {"host": "other", "boot": "x", "namespace": 1, "uid": 0, "pid": 12, "started": "1", "USER": "somebody"}
        path.write_text(json.dumps(words))
    elif kind == "failure.json":
        path.write_text(json.dumps({"kind": "oom", "error": "e", "traceback": "t\n" * 200, "submission": "seval-1"}))
    elif kind == "tiny.h5":
        path = lab.data / kind
    for damage in DAMAGES:
        count = 200 if lab.full else 40
        judged(lab, row, "tests.torture.damage:read_damaged", kind, path, damage.__name__, count, lab.data, lab.runs)
    return row


def foreign(lab: Lab, path: Path) -> bytes:
    """The same file of the same run of another seed."""
    other = lab.folder / "other"
    if not other.exists():
        done = lab.zygote.attempt("main", small.words(lab.data, other, SEED=1))
        assert done.code == 0, done.err
    ours = [run.id for run in small.chain(lab.data, lab.runs)]
    run = small.chain(lab.data, other, SEED=1)[ours.index(path.parent.name)]
    return (run.folder / path.name).read_bytes()


def replaced(rng: random.Random, content: bytes, lab: Lab, path: Path) -> dict[str, Callable[[], object]]:
    """What a file may be replaced by, as functions that do it."""
    texts = {"empty": b"", "blanks": b" \n", "null": b"null", "list": b"[]", "number": b"5", "object": b"{}"}
    texts |= {"deep": b"[" * 100_000, "not UTF-8": b"\xff\xfe{", "NaN": b'{"id": NaN, "results": 3}', "html": b"<html>"}
    made = {name: partial(path.write_bytes, text) for name, text in texts.items()}
    for k in range(3):
        made |= {f"{each.__name__} {k}": partial(path.write_bytes, each(rng, content)) for each in DAMAGES}
    if path.suffix in (".json", ".jsonl", ".h5", ".pt") and path.parent != lab.data:
        made["of another seed"] = lambda: path.write_bytes(foreign(lab, path))

    def instead(make: Callable[[], object]) -> None:
        path.unlink()
        make()

    made |= {"folder": partial(instead, path.mkdir), "dangling link": partial(instead, partial(path.symlink_to, "no"))}
    return made | {"pipe": partial(instead, partial(os.mkfifo, path))}


Case = tuple[str, Path, str, Callable[[], object]]  # where the runs stand, the file, what becomes of it and how


def cases_of(lab: Lab, calls: tuple[str, ...]) -> list[Case]:
    """Every file of the runs and of the data, in three states of the runs, which are kept as templates."""
    cases: list[Case] = []
    data, ends = lab.data / "tiny.h5", {"estimated": "mkdir", "half-way": "/checkpoint.pt", "done": ""}
    for start, word in ends.items():
        last = max((n for n, call in enumerate(calls, 1) if word and word in call), default=0)
        lab.put(None)
        lab.train(Fault(lab.runs, last))
        folder = lab.runs.rename(template(lab, start))
        files = [path for path in sorted(folder.glob("*/*")) if path.is_file() and not path.name.startswith(".")]
        for file in (*files, data):
            path = file if file == data else lab.runs / file.relative_to(folder)
            how = replaced(random.Random(file.name), file.read_bytes() or b" ", lab, path)
            cases += [(start, path, what, make) for what, make in how.items()]
    return cases


def template(lab: Lab, start: str) -> Path:
    return lab.folder / f"template {start}"


def commands(lab: Lab) -> Row:
    """Whole commands on a damaged file, estimated, half-way and done: equal, or one line that names the file."""
    row = Row("main.py, status.py, aggregate.py on damaged files: estimated, half-way, done")
    launch, (expected, calls) = Launching(lab), lab.trained()
    small.clear(launch.out)
    launch.aggregate()
    page, whole = (launch.out / "t.csv").read_bytes(), (lab.data / "tiny.h5").read_bytes()
    for start, path, what, make in lab.some("damaged files", cases_of(lab, calls), 40, 500):
        lab.put(template(lab, start))
        make()
        problems = [f"status: {each}" for each in small.manners(launch.status(), (0, 2), sound=False)]
        table = launch.aggregate(limit=20)
        problems += [f"aggregate: {each}" for each in small.manners(table, (0, 1, 2), sound=False)]
        if table.code in (0, 1) and start == "done" and path.is_file() and (launch.out / "t.csv").read_bytes() != page:
            problems.append("aggregate: another number")
        problems += trained_on(lab, path, expected, (template(lab, start) / path.parent.name / "record.json").exists())
        row.judge(f"{start}, {path.name} {what}", [f"{path.name}: {each}" for each in problems])
        restore(lab.data / "tiny.h5", whole)
    return row


def trained_on(lab: Lab, path: Path, expected: dict[str, object], done: bool) -> list[str]:
    """What is wrong with main.py where `path` is damaged, a file of a run that is `done` or not."""
    found = lab.train(limit=20)
    problems = small.manners(found, (0, 2, 4), sound=False)
    if found.code == 2 and path.name not in found.err and path.parent.name not in found.err:
        problems.append(f"does not name the file: {found.last}")
    if found.code == 0:  # of a run that is not done every file is read or written again
        unread = path.relative_to(lab.runs).as_posix() if done else ""
        problems += small.differences({**small.state(lab.runs), unread: 0}, {**expected, unread: 0})
    return problems


def restore(path: Path, content: bytes) -> None:
    """Whatever has become of a file, it is what it was."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    path.write_bytes(content)


def named(kind: str) -> Callable[[Lab], Row]:
    campaign = partial(readers, kind)
    campaign.__module__, campaign.__name__ = __name__, f"readers {kind}"
    return campaign


CAMPAIGNS = (*map(named, KINDS), commands)
