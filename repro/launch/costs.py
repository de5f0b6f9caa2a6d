"""What runs cost: by the finished runs of their kind, else by an assumption of the site."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress

from repro.launch.site import Site
from seval.record import last_line
from seval.run import Run

_COSTS = re.compile(r'^ "(steps|seconds)": ([0-9.]+)', re.MULTILINE)


def cost(run: Run) -> tuple[float, int]:
    """(seconds, steps) to the last evaluation; read from the end of a record, for there may be ten thousand."""
    with suppress(OSError), (run.folder / "record.json").open("rb") as file:
        file.seek(max(0, file.seek(0, 2) - 4096))
        found = dict(_COSTS.findall(file.read().decode(errors="replace")))
        return float(found.get("seconds", 0.0)), int(found.get("steps", 0))
    line = last_line(run.folder / "metrics.jsonl")
    return (line["seconds"] * line["step"] / run.cfg.PERIODS.EVAL, line["step"]) if line else (0.0, 0)


class Costs:
    """What runs have cost so far and will still cost, in seconds."""

    def __init__(self, runs: Iterable[Run], site: Site) -> None:
        runs = list(runs)
        self.site, self.spent = site, {run.id: cost(run) for run in runs}
        totals = defaultdict(lambda: [0.0, 0])
        for run in runs:
            for k in range(2):
                totals[_kind(run)][k] += self.spent[run.id][k]
        self.known = {kind: seconds / steps for kind, (seconds, steps) in totals.items() if seconds and steps}

    def left(self, run: Run) -> float:
        """Of one run."""
        rate = self.known.get(_kind(run)) or 1 / self.site.of(run.cfg.DATASET.NAME).steps_per_second
        return rate * (run.cfg.SOLVER.MAX_ITER - self.spent[run.id][1])

    def hours(self, runs: Iterable[Run]) -> str:
        """`about 1,234 GPU-hours`, and what this estimate is based on."""
        runs = list(runs)
        assumed = defaultdict(list)
        for name in sorted({run.cfg.DATASET.NAME for run in runs if _kind(run) not in self.known}):
            assumed[f"{self.site.of(name).steps_per_second:g} steps/s on"].append(name)
        basis = [f"{rate} {', '.join(names)}" for rate, names in assumed.items()]
        hours = sum(map(self.left, runs)) / 3600
        words = f"assuming {'; '.join(basis)}" if basis else "judging by the runs so far"
        return f"about {hours:,.{0 if hours >= 10 else 1}f} GPU-hours, {words}"


def _kind(run: Run) -> tuple[str, ...]:
    """Runs of the same kind need about the same time for a step."""
    cfg = run.cfg
    return cfg.DATASET.NAME, cfg.MODEL.NAME, cfg.ALGORITHM.NAME.partition("(")[0]
