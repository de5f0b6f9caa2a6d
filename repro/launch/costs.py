"""What runs cost: by the runs of their kind so far, else by the site's word, else computed for its card."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from typing import NamedTuple

from repro.launch.needs import CARDS, EFFICIENCY, card_of, needs
from repro.launch.site import Site
from seval.record import last_line
from seval.run import Run

_COSTS = re.compile(r'^ "(steps|seconds)": ([0-9]+(?:\.[0-9]+)?),?$', re.MULTILINE)
_DEVICE = re.compile(r'^  "device": "(.*)"', re.MULTILINE)


class Spent(NamedTuple):
    """What a run has cost up to its last evaluation, and on what, if there is a record that says so."""

    seconds: float = 0.0
    steps: int = 0
    processor: str = ""  # GPU or CPU


def cost(run: Run) -> Spent:
    """Read from the end of a record, for there may be ten thousand."""
    with suppress(OSError), (run.folder / "record.json").open("rb") as file:
        file.seek(max(0, file.seek(0, 2) - 4096))
        text = file.read().decode(errors="replace")
        found, device = dict(_COSTS.findall(text)), _DEVICE.search(text)
        processor = ("CPU" if device[1].startswith("cpu") else "GPU") if device else ""
        return Spent(float(found.get("seconds", 0)), int(float(found.get("steps", 0))), processor)
    if line := last_line(run.folder / "metrics.jsonl"):
        with suppress(KeyError, TypeError):
            return Spent(line["seconds"] * line["step"] / run.cfg.PERIODS.EVAL, line["step"])
    return Spent()


class Costs:
    """What runs have cost so far and will still cost, in seconds; runs without a record count as on `processor`."""

    def __init__(self, runs: Iterable[Run], site: Site, processor: str = "GPU") -> None:
        runs = list(runs)
        self.site, self.processor, self.spent = site, processor, {run.id: cost(run) for run in runs}
        self.card = CARDS["cpu"] if processor == "CPU" else card_of(f"{site.card} {site.gres} {site.constraint}")
        totals = defaultdict(lambda: [0.0, 0])
        for run in runs:
            if (spent := self.spent[run.id]).processor in ("", processor):
                totals[_kind(run)][0] += spent.seconds
                totals[_kind(run)][1] += spent.steps
        self.known = {kind: seconds / steps for kind, (seconds, steps) in totals.items() if seconds and steps}
        self.assumed: dict[tuple[object, ...], float] = {}

    def rate(self, run: Run) -> float:
        """Seconds of a step."""
        kind = _kind(run)
        if kind not in self.known | self.assumed:
            given = self.site.of(run.cfg.DATASET.NAME).steps_per_second
            self.assumed[kind] = 1 / given if given else needs(run.cfg).seconds(self.card, run.cfg.SOLVER.PRECISION)
        return self.known.get(kind) or self.assumed[kind]

    def left(self, run: Run) -> float:
        """Of one run."""
        return self.rate(run) * (run.cfg.SOLVER.MAX_ITER - self.spent[run.id].steps)

    def so_far(self) -> str:
        """`1.5 GPU-hours and 12 CPU-minutes`."""
        totals: dict[str, float] = defaultdict(float)
        for spent in self.spent.values():
            totals[spent.processor or self.processor] += spent.seconds
        found = [amount(totals[name], name) for name in ("GPU", "CPU") if totals[name]]
        return " and ".join(found) or amount(0.0, self.processor)

    def hours(self, runs: Iterable[Run]) -> str:
        """`about 1,234 GPU-hours`, and what this estimate is based on."""
        runs = list(runs)
        rates = defaultdict(set)
        for run in runs:
            if _kind(run) not in self.known:
                rates[run.cfg.DATASET.NAME].add(float(f"{1 / self.rate(run):.2g}"))
        named = defaultdict(list)
        for name, found in sorted(rates.items()):
            named[" to ".join(f"{rate:g}" for rate in sorted({min(found), max(found)}))].append(name)
        basis = "; ".join(f"{rate} steps/s on {', '.join(names)}" for rate, names in named.items())
        given = all(self.site.of(name).steps_per_second for name in rates)
        of = "" if given else f"{self.card.name} at {EFFICIENCY:.0%} of its peak rates: "
        words = f"assuming {of}{basis}" if basis else "judging by the runs so far"
        return f"about {amount(sum(map(self.left, runs)), self.processor)}, {words}"


def amount(seconds: float, processor: str) -> str:
    """`1,234 GPU-hours`, `1.5 CPU-hours`, `12 CPU-minutes` or `40 CPU-seconds`."""
    hours = seconds / 3600
    number, unit = (hours, "hour") if hours >= 1 else (seconds / 60, "minute") if seconds >= 60 else (seconds, "second")
    text = f"{number:,.{int(unit == 'hour' and hours < 10)}f}"
    return f"{text} {processor}-{unit}{'s' * (text != '1')}"


def _kind(run: Run) -> tuple[object, ...]:
    """Runs of the same kind need about the same time for a step."""
    data, model, solver = run.cfg.DATASET, run.cfg.MODEL, run.cfg.SOLVER
    network = (model.NAME, model.DEPTH, model.WIDTH, data.RESOLUTION, data.CROP)
    batch = (solver.IMS_PER_BATCH, solver.UNLABELED_BATCH_RATIO, solver.PRECISION)
    return data.NAME, run.cfg.ALGORITHM.NAME.partition("(")[0], *network, *batch
