"""How many classes have high or low recall and precision (Table 11), read off a run's record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from seval.errors import ConfigError

#: Metrics that are numbers of classes: whether recall and precision are above the average; None counts all classes.
CASES: dict[str, tuple[bool, bool] | None] = {
    "high_recall_low_precision": (True, False),
    "low_recall_high_precision": (False, True),
    "high_recall_high_precision": (True, True),
    "low_recall_low_precision": (False, False),
    "classes": None,
}
#: All that a record keeps class by class.
KEPT = {"split": "test", "network": "ema", "protocol": "last"}


def count(record: Mapping, reading: Mapping[str, str]) -> float:
    """Classes of the case `reading["metric"]`. Raises `ConfigError` where a record has no such recalls."""
    for key, only in KEPT.items():
        if reading[key] != only:
            raise ConfigError(
                f"metric {reading['metric']} with {key} {reading[key]!r}: a record keeps the classes' "
                f"recall and precision for {key} {only!r} only; set that"
            )
    offsets = record["per_class"]
    if reading["offset"] not in offsets:
        raise ConfigError(f"run {record['id']} recorded no offset {reading['offset']!r}, only {', '.join(offsets)}")
    return float(number(**offsets[reading["offset"]], case=CASES[reading["metric"]]))


def number(recall: Sequence[float | None], precision: Sequence[float | None], case: tuple[bool, bool] | None) -> int:
    """How many classes with test images are of that case; a class that is never predicted has low precision."""
    recalls, precisions = (np.array(values, float) for values in (recall, precision))  # None becomes nan
    present = np.isfinite(recalls)
    if case is None:
        return int(present.sum())
    high = [values > np.nanmean(values) for values in (recalls, precisions)]  # nan is not
    return int((present & (high[0] == case[0]) & (high[1] == case[1])).sum())
