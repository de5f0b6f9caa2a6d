"""Time a whole training step against the bare forward, backward and optimizer step of the same network.

The whole step is what training runs: batches and their views, algorithm, policy, optimizer and average. The bare step
passes every image of such a batch through the network once and minimizes a plain cross-entropy. It gets ready batches
of the same shapes. Both sides run in turns, on the real images of data/tiny.h5. A ratio near 1 means that this code
adds little to the network's own time. A method that only predicts some of its views, such as mean_teacher, can be
below 1. On a CPU both sides have one thread, and CPU time is read, since other programs may share the machine. On a GPU
each row also counts kernels and host waits, and there are rows for precision, determinism, capture and runs packed on
one card. benchmarks/gpu.md says how to read the table.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from itertools import count, cycle
from pathlib import Path

import torch
import torch.nn.functional as F
from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import gpu
from benchmarks.timing import Step, in_turns, machine, shares
from seval.build import Training
from seval.config import load
from seval.errors import SevalError
from seval.files import replace
from seval.keys import pairs
from seval.run import Run
from seval.train import update

ROOT = Path(__file__).resolve().parents[1]
BATCHES = 8  # ready batches of the bare side: enough that they are not learned by heart
WARM_UP = 20  # steps of each side before the first that is timed, or as many as are timed, if these are fewer
WIDE = ["MODEL.DEPTH", 28, "MODEL.WIDTH", 2, "DATASET.RESOLUTION", 32]
WIDE += ["SOLVER.IMS_PER_BATCH", 64, "SOLVER.UNLABELED_BATCH_RATIO", 2]
EXAMPLES = """examples:
  python benchmarks/step.py                                     fixmatch and fixmatch_seval on this machine
  python benchmarks/step.py --method daso --pairs 1000
  python benchmarks/step.py --wide --pairs 5                    WRN-28-2, 64 + 2 x 128 images of 32 pixels
  python benchmarks/step.py SOLVER.PRECISION bfloat16           any key of seval/defaults.py
  python benchmarks/step.py --json step.json --markdown step.md
"""


def prepared(method: str, device: torch.device, overrides: list) -> Run:
    """The run of configs/tiny/<method>.yaml. Raises `ValueError` where it depends on another run or is unknown."""
    file = ROOT / "configs" / "tiny" / f"{method}.yaml"
    if not file.is_file():
        known = sorted(path.stem for path in file.parent.glob("*.yaml") if path.stem != "dataset")
        raise ValueError(f"unknown method {method!r}; known methods: {', '.join(known)}")
    where = ["GPU_ID", 0] if device.type == "cuda" else ["GPU_ID", -1, "RUNTIME.THREADS", 1]
    cfg = load(file, ["DATASET.ROOT", str(ROOT / "data"), *where, *overrides])
    if cfg.PREREQUISITE:
        raise ValueError(f"{method} depends on a finished run; choose a method that trains from nothing")
    return Run(cfg)


def whole(training: Training) -> Step:
    """A call of it is the next step as training runs it."""
    steps = count()
    return lambda: update(training, next(steps))


def bare(training: Training) -> Step:
    """A call of it trains `training.net` on the next ready batch, with random labels."""
    net, optimizer, ready = training.net, training.optimizer, []
    for _ in range(BATCHES):
        batch = next(training.loader)
        images = torch.cat([batch.images, *batch.views])
        ready.append((images, torch.randint(len(training.class_counts), (len(images),)).to(images.device)))
    batches = cycle(ready)

    def step() -> None:
        images, labels = next(batches)
        optimizer.zero_grad()
        F.cross_entropy(net(images).float(), labels).backward()
        optimizer.step()

    return step


def row(
    method: str, label: str, setting: gpu.Setting, overrides: list, amount: int, device: torch.device
) -> dict[str, object]:
    """Everything about one method in one setting."""
    run = prepared(method, device, overrides)
    training = run.build({})
    ours, other = whole(training), bare(run.build({}))
    with setting.flags():  # only now, for building a run sets them
        for step in (ours, other) * min(WARM_UP, amount):
            step()
        found = in_turns(ours, other, amount, device)
        steps = {"steps_per_second": 1000 / found.ours} if device.type == "cpu" else gpu.profiled(ours, amount, device)
        return {"method": method, "setting": label, **found._asdict(), **shares(training, ours, amount), **steps}


def shown(rows: list[dict]) -> str:
    """A Markdown table."""
    form: dict[str, Callable[[object], str]] = {
        "ours": "{:.2f}".format,
        "other": "{:.2f}".format,
        "ratio": "{:.3f}".format,
        **dict.fromkeys(("data", "policy", "optimizer", "average"), "{:.0%}".format),
        **dict.fromkeys(("steps_per_second", "kernels", "waits"), "{:.4g}".format),
    }
    names = {"ours": "step, ms", "other": "bare step, ms", "steps_per_second": "steps/s"}
    keys = ["method", "setting", *(key for key in form if any(key in row for row in rows))]
    body = [[form.get(key, str)(row[key]) if key in row else "" for key in keys] for row in rows]
    return tabulate(body, [names.get(key, key) for key in keys], "pipe", disable_numparse=True)


def measured(methods: list[str], overrides: list, wide: bool, amount: int, device: torch.device) -> list[dict]:
    """The rows asked for; on a GPU each method in every setting of `gpu.SETTINGS`."""
    settings = gpu.SETTINGS if device.type == "cuda" else {"": gpu.Setting()}
    rows = []
    for size, keys in {"WRN-28-2": WIDE, "": []}.items() if device.type == "cuda" else {"": WIDE * wide}.items():
        for name, setting in settings.items():
            label = ", ".join(filter(None, (size or ("WRN-28-2" if wide else "tiny"), name)))
            for method in methods:
                keys_here = [*keys, *setting.keys, *overrides]
                rows.append(row(method, label, setting, keys_here, amount, device))
                print(shown(rows[-1:]).splitlines()[-1], file=sys.stderr)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--method", action="append", help="a file of configs/tiny (default: fixmatch, fixmatch_seval)")
    parser.add_argument("--wide", action="store_true", help="WRN-28-2 at 32 pixels; on a GPU both are measured anyway")
    parser.add_argument("--pairs", type=int, default=300, help="steps of each side that are timed (default: 300)")
    parser.add_argument("--packed", type=int, default=0, metavar="N", help="also 1 to N runs at once on the device")
    parser.add_argument("--cpu", action="store_true", help="on the CPU, also where there is a GPU")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything as JSON")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table as Markdown")
    args, words = parser.parse_known_args()
    if args.pairs < 1:
        parser.error("--pairs must be at least 1")
    device = torch.device("cuda" if torch.cuda.is_available() and not args.cpu else "cpu")
    if device.type == "cpu":
        torch.set_num_threads(1)
    try:
        methods = args.method or ["fixmatch", "fixmatch_seval"]
        rows = measured(methods, pairs(words), args.wide, args.pairs, device)
    except (ValueError, SevalError) as error:
        parser.error(str(error))
    together = gpu.packed(args.packed, device) if args.packed else {}
    about = machine(device)
    text = f"{about['device']}, {about['processor']}, PyTorch {torch.__version__}, commit {about['commit']}\n\n"
    text += f"{shown(rows)}\n"
    if together:
        text += "\nFixMatch runs at once on the device, all their steps a second: "
        text += ", ".join(f"{number}: {speed:.1f}" for number, speed in together.items()) + "\n"
    print(text, end="")
    if args.markdown:
        replace(args.markdown, text.encode())
    if args.json:
        replace(args.json, json.dumps({"machine": about, "rows": rows, "packed": together}, indent=1).encode())


if __name__ == "__main__":
    main()
