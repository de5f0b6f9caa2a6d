"""Time a whole training step against the bare forward, backward and optimizer step of the same network.

The whole step is what training runs: batches and their views, algorithm, policy, optimizer and average. The bare step
passes every image of such a batch through the network once and minimizes a plain cross-entropy. It gets ready batches
of the same shapes. Both sides run on one thread, in turns, on the real images of data/tiny.h5. A ratio near 1 means
that this code adds little to the network's own time. A method that only predicts some of its views, such as
mean_teacher, can be below 1. Where other programs share the machine, read the ratio of CPU times.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from collections.abc import Callable
from itertools import count, cycle
from pathlib import Path

import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).parents[1]))

from seval.build import Training
from seval.config import load
from seval.run import Run
from seval.train import update

ROOT = Path(__file__).resolve().parents[1]
BATCHES = 8  # ready batches of the bare side: enough that they are not learned by heart
WARM_UP = 20  # steps of each side before the first that is timed
EXAMPLES = """examples:
  python benchmarks/step.py
  python benchmarks/step.py --method fixmatch_seval --pairs 1000
"""


def prepared(method: str) -> Run:
    """The run of configs/tiny/<method>.yaml. Raises `ValueError` where it depends on another run or is unknown."""
    file = ROOT / "configs" / "tiny" / f"{method}.yaml"
    if not file.is_file():
        known = sorted(path.stem for path in file.parent.glob("*.yaml") if path.stem != "dataset")
        raise ValueError(f"unknown method {method!r}; known methods: {', '.join(known)}")
    cfg = load(file, ["DATASET.ROOT", str(ROOT / "data"), "GPU_ID", -1, "RUNTIME.THREADS", 1])
    if cfg.PREREQUISITE:
        raise ValueError(f"{method} depends on a finished run; choose a method that trains from nothing")
    return Run(cfg)


def whole(training: Training) -> Callable[[], object]:
    """A call of it is the next step as training runs it."""
    steps = count()
    return lambda: update(training, next(steps))


def bare(training: Training) -> Callable[[], object]:
    """A call of it trains `training.net` on the next ready batch, with random labels."""
    net, optimizer, ready = training.net, training.optimizer, []
    for _ in range(BATCHES):
        batch = next(training.loader)
        images = torch.cat([batch.images, *batch.views])
        ready.append((images, torch.randint(len(training.class_counts), (len(images),))))
    batches = cycle(ready)

    def step() -> None:
        images, labels = next(batches)
        optimizer.zero_grad()
        F.cross_entropy(net(images), labels).backward()
        optimizer.step()

    return step


def seconds(step: Callable[[], object]) -> tuple[float, float]:
    """(CPU, elapsed) seconds of one step."""
    elapsed, spent = time.perf_counter(), time.process_time()
    step()
    return time.process_time() - spent, time.perf_counter() - elapsed


def report(name: str, ours: list[float], network: list[float]) -> str:
    """A line on the paired seconds of both sides. The interval is that of the median, at 95%, by ranks."""
    ratios = sorted(a / b for a, b in zip(ours, network, strict=True))
    middle, reach = (len(ratios) - 1) / 2, 0.98 * math.sqrt(len(ratios))
    low, high = ratios[max(0, math.floor(middle - reach))], ratios[min(len(ratios) - 1, math.ceil(middle + reach))]
    quarter = len(ratios) // 4
    return (
        f"{name:7s} {1000 * statistics.median(ours):7.2f} ms / {1000 * statistics.median(network):7.2f} ms: "
        f"ratio {statistics.median(ratios):.3f} (95% interval {low:.3f} to {high:.3f}; "
        f"half of the pairs {ratios[quarter]:.3f} to {ratios[-1 - quarter]:.3f})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--method", default="fixmatch", help="a file of configs/tiny (default: fixmatch)")
    parser.add_argument("--pairs", type=int, default=300, help="steps of each side that are timed (default: 300)")
    args = parser.parse_args()
    if args.pairs < 1:
        parser.error("--pairs must be at least 1")
    try:
        run = prepared(args.method)
    except ValueError as error:
        parser.error(str(error))
    torch.set_num_threads(1)
    ours, network = whole(run.build({})), bare(run.build({}))
    for step in (ours, network) * WARM_UP:
        step()
    # In turns, so that a slow spell of the machine affects both sides; then the ratio of each pair.
    pairs = [(*seconds(ours), *seconds(network)) for _ in range(args.pairs)]
    our_cpu, our_elapsed, net_cpu, net_elapsed = (list(column) for column in zip(*pairs, strict=True))
    print(f"{args.method}: whole step / bare step, medians over {args.pairs} interleaved pairs on one thread")
    print(report("CPU", our_cpu, net_cpu))
    print(report("elapsed", our_elapsed, net_elapsed))


if __name__ == "__main__":
    main()
