"""What a step of each setting needs of a GPU, counted, and how fast each card should be: a Markdown table.

Nothing is measured: repro/launch/needs.py says what is counted and what is assumed.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tabulate import tabulate

from repro.launch.needs import CARDS, memory, needs, step_images
from seval.config import load

ROOT = Path(__file__).resolve().parents[1]
SHOWN = ("v100", "a100", "h100")


def row(name: str, precision: str) -> list[str]:
    """Of FixMatch on a data set."""
    keys = ["SOLVER.PRECISION", precision, "DATASET.ROOT", str(ROOT / "data")]
    cfg = load(ROOT / "configs" / name / "fixmatch.yaml", keys)
    need = needs(cfg)
    flops, moved = (sum(column) for column in zip(*need.operations, strict=True))
    speeds = [f"{1 / need.seconds(CARDS[card], precision):.0f}" for card in SHOWN]
    counted = [f"{flops / 1e12:.2g}", f"{moved / 1e9:.2g}", f"{memory(cfg) / 1e9:.1f}"]
    return [f"`{name}`", precision, str(step_images(cfg)), *counted, *speeds]


def main() -> None:
    sets = ("cifar10", "cifar100", "stl10", "semi_aves", "small_imagenet127", "tiny")
    rows = [row(name, precision) for name in sets for precision in ("float32", "bfloat16")]
    speeds = [f"{CARDS[card].name}, steps/s" for card in SHOWN]
    headers = ["set", "precision", "images", "TFLOP", "GB moved", "GB of memory", *speeds]
    print(tabulate(rows, headers, "pipe", disable_numparse=True))


if __name__ == "__main__":
    main()
