"""SEVAL's hyper-parameters (Table 10), read from the configurations that a table of kind `settings` names."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

from repro.tables.table import Cell, Table
from repro.tables.yaml_file import check_known
from seval.defaults import Node
from seval.policy.base import Facts
from seval.policy.language import build_policy
from seval.policy.seval import SevalRefine, SevalThreshold

R = TypeVar("R", SevalRefine, SevalThreshold)
#: Numbers of classes; a configuration leaves them to the prepared file.
CLASSES = {"cifar10": 10, "cifar100": 100, "stl10": 10, "semi_aves": 200, "small_imagenet127": 127}


def seval_rule(cfg: Node, kind: type[R]) -> R:
    """SEVAL's rule of that kind in the configured policy."""
    classes = CLASSES[cfg.DATASET.NAME]
    policy = build_policy(cfg.HEADS.LINEAR.POLICY, Facts(classes, torch.ones(classes), 1, num_held_out=1))
    return next(rule for rule in policy if isinstance(rule, kind))


#: What the row of that name reads from a configuration.
QUANTITIES: dict[str, Callable[[Node], float]] = {
    "C": lambda cfg: CLASSES[cfg.DATASET.NAME],
    "T": lambda cfg: cfg.SOLVER.MAX_ITER,
    "t": lambda cfg: seval_rule(cfg, SevalThreshold).target,
    "t_V": lambda cfg: seval_rule(cfg, SevalThreshold).target,
    "L": lambda cfg: cfg.SOLVER.MAX_ITER // cfg.PERIODS.EVAL,
    "B": lambda cfg: int((seval_rule(cfg, SevalThreshold).groups == 0).sum()),
    "eta_pi": lambda cfg: seval_rule(cfg, SevalRefine).curriculum.decay,
    "eta_tau": lambda cfg: seval_rule(cfg, SevalThreshold).curriculum.decay,
}


def quantity(table: Table, cell: Cell) -> float | None:
    """The quantity of the cell's row in its configuration; None where the row leaves the cell out."""
    check_known([cell.row], QUANTITIES, f"quantity, as the row of table {table.name}")
    settings = table.settings(cell.row, cell.column)
    if not settings:
        return None
    return QUANTITIES[cell.row](table.configuration(settings, (), f"row {cell.row!r}"))


def compared(table: Table, cell: Cell) -> list[str]:
    """The configured value and the reported value, which is marked where it differs."""
    ours, reported = quantity(table, cell), cell.reported and cell.reported[0]
    same = "" if ours == reported or None in (ours, reported) else "≠ "
    return ["" if ours is None else f"{ours}", "" if reported is None else f"{same}{reported}"]
