"""What the runs of a cell have left on disk: records, evaluations and learned curricula, by seed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

import numpy as np

from repro.tables.reading import OFFSETS, Records
from repro.tables.table import Cell
from seval.defaults import Node
from seval.errors import PolicyError, RecordError
from seval.places import ROOT
from seval.policy.seval import published
from seval.record import load_artifacts, read_lines
from seval.run import Run

POINTS = 100  # of a curve, which is as many as a figure of this size shows
CURRICULA = ROOT / "tests" / "curricula"  # the authors', as they are published
Pick = Callable[[dict], float | None]
T = TypeVar("T")


@dataclass(frozen=True)
class Series:
    """A number over steps: mean and population standard deviation over the seeds that have it."""

    steps: np.ndarray
    mean: np.ndarray
    std: np.ndarray


@dataclass
class Group:
    """The runs of one cell or of several that read the same runs."""

    runs: dict[int, Run]
    records: Records
    column: str
    rows: list[str] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)

    @property
    def key(self) -> str:
        """A name that is the same in every report."""
        return next(iter(self.runs.values())).id

    @property
    def title(self) -> str:
        """Its rows and its column."""
        return " · ".join(filter(None, (", ".join(self.rows), self.column)))

    @cached_property
    def lines(self) -> dict[int, list[dict]]:
        """By seed, about `POINTS` evaluations of each run that has any, at the same steps for every seed."""
        found = {seed: read_lines(run.folder / "metrics.jsonl", _chosen(run.cfg)) for seed, run in self.runs.items()}
        return {seed: lines for seed, lines in found.items() if lines}

    @cached_property
    def done(self) -> dict[int, dict]:
        """By seed, the records."""
        found = {seed: self.records.of(run) for seed, run in self.runs.items()}
        return {seed: record for seed, record in found.items() if record}

    def series(self, pick: Pick) -> Series | None:
        """What `pick` finds in the evaluations; None if nowhere anything."""
        values: dict[int, list[float]] = {}
        for lines in self.lines.values():
            for line in lines:
                if (value := read(line, pick)) is not None:
                    values.setdefault(line["step"], []).append(value)
        if not values:
            return None
        steps = sorted(values)
        rows = [values[step] for step in steps]
        return Series(np.array(steps, float), np.array(list(map(np.mean, rows))), np.array(list(map(np.std, rows))))

    def average(self, pick: Callable[[dict], Iterable[float | None]]) -> np.ndarray | None:
        """(C,) the mean over the records of what `pick` finds for each class, nan where nothing; None if nowhere."""
        rows = []
        for record in self.done.values():
            try:
                rows.append(np.array(list(pick(record)), float))
            except (LookupError, TypeError, ValueError, AttributeError):
                continue
        if not rows or not rows[0].ndim or len({len(row) for row in rows}) != 1:
            return None
        table = np.array(rows)
        known = np.isfinite(table)
        total = np.where(known, table, 0).sum(0)
        return np.where(known.any(0), total / np.maximum(known.sum(0), 1), np.nan) if known.any() else None

    def offsets(self) -> list[str]:
        """The offsets at which the runs were measured."""
        last = [read(lines[-1], lambda line: line["test"]["ema"]) for lines in self.lines.values()]
        measured = {name for found in last for name in found or ()}
        return [name for name in OFFSETS if name in measured]

    @cached_property
    def curriculum(self) -> tuple[int, dict[str, np.ndarray]] | None:
        """The first seed that has learned, or replayed, pi or tau, and these arrays; None if none did."""
        for seed, record in self.done.items():
            run = self.runs[seed]
            if not any("seval_" in head.POLICY for head in run.cfg.HEADS.values()):
                continue
            try:
                heads = load_artifacts(run.folder / "artifacts.h5", record.get("artifacts"))
            except (RecordError, OSError) as error:
                self.records.damaged[run.id] = str(error)
                continue
            arrays = list(heads.values())[-1] if heads else {}
            if "pi_smoothed" in arrays or "tau_smoothed" in arrays:
                return seed, arrays
        return None

    def published(self) -> dict[str, np.ndarray] | None:
        """The curriculum that the authors published for this setting, or None."""
        cfg = next(iter(self.runs.values())).cfg
        try:
            return published(CURRICULA / name) if (name := _published_name(cfg)) else None
        except PolicyError:
            return None


def groups(cells: Iterable[tuple[str, Cell]]) -> dict[tuple[str, ...], Group]:
    """The cells, each with the name of its table, by the ids of their runs; only those with anything on disk."""
    every: dict[tuple[str, ...], Group] = {}
    for table, cell in cells:
        if cell.runs:
            ids = tuple(run.id for run in cell.runs.values())
            group = every.setdefault(ids, Group(cell.runs, cell.records, cell.column))
            for known, name in ((group.rows, cell.row), (group.tables, table)):
                if name not in known:
                    known.append(name)
    return {ids: group for ids, group in every.items() if group.lines or group.done}


def read(line: dict, pick: Callable[[dict], T]) -> T | None:
    """What `pick` reads from a line; None where it is not there or has another form."""
    try:
        return pick(line)
    except (LookupError, TypeError, AttributeError):
        return None


def _chosen(cfg: Node) -> Callable[[int, bytes], bool]:
    """Which lines are read: by their place, so that all seeds have the same; those with quality are thinned alone."""
    count = -(-cfg.SOLVER.MAX_ITER // cfg.PERIODS.EVAL)
    measured = -(-cfg.SOLVER.MAX_ITER // max(cfg.PERIODS.QUALITY, cfg.PERIODS.EVAL, 1))
    every, every_measured, seen = max(1, round(count / POINTS)), max(1, round(measured / POINTS)), [0]

    def chosen(place: int, text: bytes) -> bool:
        if b'"quality": {"' in text:
            seen[0] += 1
            if seen[0] % every_measured == 0:
                return True
        return (place + 1) % every == 0 or place + 1 == count

    return chosen


def _published_name(cfg: Node) -> str | None:
    """What the authors call the curriculum of a setting; they have published those of seed 79."""
    name, data = cfg.DATASET.NAME, cfg.DATASET
    if name in ("cifar10", "cifar100"):
        tail = data[name.upper()]
        labeled, unlabeled = (
            f"{getattr(tail, f'NUM_{kind}_HEAD')}_{getattr(tail, f'IMB_FACTOR_{short}'):g}"
            for kind, short in (("LABELED", "L"), ("UNLABELED", "UL"))
        )
        return f"{name}_l_{labeled}_ul_{unlabeled}_seed_79"
    if name == "stl10":
        return f"stl10_l_{data.STL10.NUM_LABELED_HEAD}_{data.STL10.IMB_FACTOR_L:g}_ul_-1_-1_seed_79"
    if name == "semi_aves":
        return f"aves_l_-1_-1_ul_-1_-1_seed_79_{data.AVES.UL_SOURCE}"
    return None
