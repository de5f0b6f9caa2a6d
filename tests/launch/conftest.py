"""A checkout with a table and a site, on a SLURM of stubs."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from repro import status, submit
from repro.launch import failures
from repro.launch.answers import elements
from repro.launch.ledger import Submission, submissions
from repro.tables import table as tables
from seval.data import hdf5
from seval.files import sealed
from seval.run import Run
from tests.checkout import make_checkout
from tests.launch.fake_slurm import Fake
from tests.settings import ROOT


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Sleeps take no time; collects their seconds."""
    found: list[float] = []
    slept = time.sleep  # which `subprocess` also takes, in small bites
    monkeypatch.setattr(time, "sleep", lambda seconds: found.append(seconds) if seconds >= 0.1 else slept(seconds))
    return found


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pauses: list[float]) -> Fake:
    fake = Fake(tmp_path / "fake")
    (tmp_path / "tools").mkdir()
    for name in ("awk", "bash", "cat", "cp", "git", "grep", "rm", "sed", "seq", "sleep", "touch"):
        (tmp_path / "tools" / name).symlink_to(shutil.which(name))
    monkeypatch.setenv("PATH", f"{fake.bin}:{tmp_path / 'tools'}")  # a machine may have a SLURM of its own
    return fake


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared set under the name of CIFAR-10: ten images of ten classes."""
    tiny, path = hdf5.read(ROOT / "data" / "tiny.h5"), tmp_path_factory.mktemp("data") / "cifar10.h5"
    train, test = (
        part._replace(images=part.images[first], labels=part.labels[first])
        for part in (tiny.train, tiny.test)
        for first in [np.unique(part.labels, return_index=True)[1]]
    )
    hdf5.write(path, tiny._replace(name="cifar10", train=train, test=test, sha256={}))
    return path


TABLE = """\
folder: small
seeds: [0, 1, 2]
columns: {LT: {}}
rows:
  Plain:  {config: plain}
  Replay: {config: replay}
  Deep:   {config: replay, set: [PREREQUISITE, [MEMO, middle, PREREQUISITE, [MEMO, first]]]}
"""


class Lab:
    """A checkout with one table, a site, and the commands on them."""

    def __init__(self, folder: Path, fake: Fake, capsys: pytest.CaptureFixture) -> None:
        self.folder, self.fake, self.capsys, self.runs = folder, fake, capsys, folder / "runs"
        self.known: dict[str, dict[str, Run]] = {}
        self.site()

    def site(self, **facts: object) -> None:
        standard = {"resources": {"default": {"minutes": 60, "memory_gb": 4, "cpus": 2}}, "patience": 5}
        (self.folder / "site.yaml").write_text(yaml.safe_dump(standard | facts))

    def table(self, text: str) -> None:
        (self.folder / "paper_tables/sweep.yaml").write_text(text)

    def call(self, main: Callable, *words: str, code: int = 0) -> str:
        """Its stdout where it is fine, else its stderr."""
        self.capsys.readouterr()
        given = main(["--table", "sweep", "--site", "site.yaml", *words])
        out, err = self.capsys.readouterr()
        assert given == code, out + err
        assert bool(err) == bool(code), err
        return err or out

    def both(self, main: Callable, *words: str) -> tuple[str, str]:
        """Its stdout and its stderr."""
        self.capsys.readouterr()
        assert main(["--table", "sweep", "--site", "site.yaml", *words]) == 0
        return self.capsys.readouterr()

    def submit(self, *words: str, code: int = 0) -> str:
        return self.call(submit.main, "--cluster", "slurm", *words, code=code)

    def status(self, *words: str, code: int = 0) -> str:
        return self.call(status.main, *words, code=code)

    def kinds(self) -> dict[str, str]:
        """By name, as in `names`."""
        found = {each["id"]: each["state"] for each in json.loads(self.status("--json"))}
        return {name: found[run.id] for name, run in self.names().items()}

    def names(self) -> dict[str, Run]:
        """Runs by row and seed, and how many others stand between: Plain 0, Replay 0/1, Deep 2/2, ..."""
        text = (self.folder / "paper_tables/sweep.yaml").read_text()
        if text in self.known:
            return self.known[text]
        found = self.known[text] = {}
        for cell in tables.find_table("sweep").cells():
            for seed, last in cell.runs.items():
                for depth, run in enumerate(reversed(last.chain())):
                    name = f"{cell.row} {seed}" + (f"/{depth}" if depth else "")
                    if run.id not in {each.id for each in found.values()}:
                        found[name] = run
        return found

    def ledgers(self) -> list[Submission]:
        return submissions(self.runs / "slurm")

    def times(self) -> dict[str, int]:
        """How often each run is in a ledger, those never submitted left out."""
        ids = [id for ledger in self.ledgers() for element in ledger.elements for id in element]
        return {name: ids.count(run.id) for name, run in self.names().items() if run.id in ids}

    def element(self, name: str) -> str:
        """The number of a run's last element."""
        id = self.names()[name].id
        made, index = [(made, k) for made in self.ledgers() for k, each in enumerate(made.elements) if id in each][-1]
        return next(
            number
            for number, (job, *_) in self.fake.queue().items()
            if job == made.name and next(elements(number))[1] == index
        )

    def done(self, *names: str) -> None:
        """These have a record, and their elements are gone."""
        for name in names:
            with_record(self.names()[name])
            self.fake.end(self.element(name), "COMPLETED")

    def failed(self, name: str, kind: str, error: str) -> None:
        """As a worker leaves it."""
        run = self.names()[name]
        last = [made for made in self.ledgers() if run.id in made.settings][-1]
        failures.fail(run.folder, kind, error, "Traceback ...", last.name)
        self.fake.end(self.element(name), "FAILED", "1:0")


def with_metrics(folder: Path, **line: float) -> None:
    """As a run leaves them after one evaluation."""
    line = sealed({"run": folder.name, **line})
    (folder / "metrics.jsonl").write_text(json.dumps(line) + "\n", encoding="utf-8")


def with_record(run: Run) -> None:
    results = {"test": {"ema": {"none": {"top1": {"median20": 0.5}}}}}
    run.folder.mkdir(parents=True, exist_ok=True)
    (run.folder / "record.json").write_text(json.dumps({"id": run.id, "results": results, "steps": 4, "seconds": 2}))


@pytest.fixture
def lab(
    tmp_path: Path, fake: Fake, prepared: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> Lab:
    make_checkout(tmp_path, TABLE, monkeypatch)
    monkeypatch.delenv("SEVAL_SITE", raising=False)
    monkeypatch.setenv("SEVAL_DATA", str(tmp_path))
    shutil.copy(prepared, tmp_path / "cifar10.h5")
    monkeypatch.chdir(tmp_path)
    return Lab(tmp_path, fake, capsys)


ONE = {"rows": {"Plain": {"config": "plain"}}, "columns": {"LT": {}}, "seeds": [0], "folder": "small"}
PAIR = ONE | {"rows": {"Replay": {"config": "replay"}}}


def table(content: dict, **changes: object) -> str:
    return yaml.safe_dump(content | changes, sort_keys=False)
