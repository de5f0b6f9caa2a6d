"""What the timings share: steps of both sides in turns, paired ratios, shares of parts, and the machine they ran on."""

from __future__ import annotations

import math
import os
import platform
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import torch

from seval.build import Training
from seval.provenance import provenance
from seval.versions import versions

Step = Callable[[], object]


class Ratio(NamedTuple):
    """Of paired seconds: both medians in milliseconds, the median ratio, and its 95% interval by ranks."""

    ours: float
    other: float
    ratio: float
    low: float
    high: float

    @classmethod
    def of(cls, ours: list[float], other: list[float]) -> Ratio:
        ratios = sorted(a / b for a, b in zip(ours, other, strict=True))
        middle, reach = (len(ratios) - 1) / 2, 0.98 * math.sqrt(len(ratios))
        low, high = max(0, math.floor(middle - reach)), min(len(ratios) - 1, math.ceil(middle + reach))
        medians = (1000 * statistics.median(side) for side in (ours, other))
        return cls(*medians, statistics.median(ratios), ratios[low], ratios[high])


def seconds(step: Step, device: torch.device) -> float:
    """Of one step: elapsed time on a GPU, which is waited for; CPU time on the CPU, where others may share the core."""
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    wait(device)
    begun = clock()
    step()
    wait(device)
    return clock() - begun


def in_turns(ours: Step, other: Step, pairs: int, device: torch.device) -> Ratio:
    """In turns, so that a slow spell of the machine affects both sides; then the ratio of each pair."""
    timed = [(seconds(ours, device), seconds(other, device)) for _ in range(pairs)]
    return Ratio.of(*(list(side) for side in zip(*timed, strict=True)))


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def shares(training: Training, step: Step, steps: int) -> dict[str, float]:
    """Which part of a step's time goes to batches and views, policies, optimizer and average; the rest is the network.

    On a GPU each part is waited for, which makes the whole slower than it is in training.
    """
    device, spent, begun = training.mean.device, defaultdict(float), time.perf_counter()
    parts = [("data", training.loader, "__next__"), ("optimizer", training.optimizer, "step")]
    parts += [("average", training.ema, "update")]
    parts += [("policy", head.policy, "forward") for head in training.heads if len(head.policy)]
    with ExitStack() as stack:
        for name, owner, method in parts:
            stack.enter_context(_timed(spent, name, owner, method, device))
        wait(device)
        begun = time.perf_counter()
        for _ in range(steps):
            step()
        wait(device)
    whole = time.perf_counter() - begun
    return {name: spent[name] / whole for name in ("data", "policy", "optimizer", "average")}


@contextmanager
def _timed(spent: dict[str, float], name: str, owner: object, method: str, device: torch.device) -> Iterator[None]:
    """Inside, calls of the method are timed; a special method is one of the class."""
    target, own = (type(owner), True) if method.startswith("__") else (owner, False)
    call = getattr(target, method)

    def timed(*args: object, **keys: object) -> object:
        wait(device)
        begun = time.perf_counter()
        result = call(*args, **keys)
        wait(device)
        spent[name] += time.perf_counter() - begun
        return result

    with patch.object(target, method, timed if own else timed):
        yield


def machine(device: torch.device) -> dict[str, object]:
    """The card or processor, and the versions."""
    about = provenance(device, Path(__file__).resolve().parents[1])
    driver = torch.version.cuda if device.type == "cuda" else None
    model = next((line.partition(": ")[2] for line in _cpuinfo() if line.startswith("model name")), platform.machine())
    return {"device": about["device"], "processor": model, "cores": os.cpu_count(), "commit": about.get("commit")} | {
        "cuda": driver,
        "cudnn": torch.backends.cudnn.version(),
        "versions": versions(),
    }


def _cpuinfo() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []
