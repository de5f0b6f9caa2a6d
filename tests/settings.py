"""Settings small enough to train in a second, on the real images that ship with the code."""

from __future__ import annotations

from pathlib import Path

from seval.config import load
from seval.defaults import Node

ROOT = Path(__file__).parents[1]
SMALL = [
    "DATASET.ROOT",
    str(ROOT / "data"),
    "DATASET.NUM_VALID",
    50,
    "DATASET.NUM_TEST",
    10,
    "DATASET.TINY.NUM_LABELED_HEAD",
    60,
    "DATASET.TINY.NUM_UNLABELED_HEAD",
    90,
    "DATASET.TINY.IMB_FACTOR_L",
    10,
    "DATASET.TINY.IMB_FACTOR_UL",
    10,
    "SOLVER.MAX_ITER",
    12,
    "SOLVER.IMS_PER_BATCH",
    8,
    "PERIODS.EVAL",
    3,
    "PERIODS.CHECKPOINT",
    6,
    "PERIODS.QUALITY",
    6,
    "RUNTIME.PROGRESS",
    False,
    "RUNTIME.TENSORBOARD",
    False,
]


def small(method: str, folder: Path, *overrides: object) -> Node:
    """configs/tiny/<method>.yaml, made small, with runs under `folder`."""
    return load(ROOT / "configs" / "tiny" / f"{method}.yaml", [*SMALL, "OUTPUT_DIR", str(folder), *overrides])


def result(record: dict) -> dict:
    """What of a record must be equal, bit for bit, when the run is done again."""
    return {
        key: value
        for key, value in record.items()
        if key not in ("seconds", "seconds_last_session", "provenance", "sha256")
    }
