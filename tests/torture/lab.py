"""What every campaign needs: the zygote, a folder, small data, and how much of a plan is tried."""

from __future__ import annotations

import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from tests.torture import small
from tests.torture.shim import Attempt, Fault, Zygote

T = TypeVar("T")


@dataclass
class Lab:
    """`full`: whole plans; otherwise a named, seeded sample of each."""

    zygote: Zygote
    folder: Path
    full: bool
    data: Path = field(init=False)
    runs: Path = field(init=False)

    def __post_init__(self) -> None:
        self.data, self.runs = small.write_data(self.folder / "data"), self.folder / "runs"

    def some(self, name: str, plan: Sequence[T], few: int, many: int = 0) -> list[T]:
        """The whole plan, or at most `many` cases of it; without `full` only a few. The name is the seed."""
        limit = (many or len(plan)) if self.full else few
        if len(plan) <= limit:
            return list(plan)
        chosen = random.Random(name).sample(range(len(plan)), limit)
        return [plan[k] for k in sorted(chosen)]

    def train(self, fault: Fault | None = None, **facts) -> Attempt:
        """Both phases of SEVAL with main.py in `runs`."""
        return self.zygote.attempt("main", small.words(self.data, self.runs), fault, **facts)

    def trained(self) -> tuple[dict[str, object], tuple[str, ...]]:
        """What undisturbed training leaves, and the calls that it makes in the folder of runs."""
        small.clear(self.runs)
        done = self.train(Fault(self.runs))
        assert done.code == 0, done.err
        return small.state(self.runs), done.calls

    def put(self, template: Path | None) -> None:
        """The folder of runs as it is in a template; empty for None."""
        shutil.rmtree(self.runs, ignore_errors=True)
        shutil.copytree(template, self.runs) if template else self.runs.mkdir()

    def restarted(self, expected: dict[str, object]) -> list[str]:
        """What is wrong after the same command once more, with nothing in its way."""
        again = self.train()
        problems = small.manners(again, (0,))
        return [f"restart: {each}" for each in problems + small.differences(small.state(self.runs), expected)]
