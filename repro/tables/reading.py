"""Which number of a run's record a cell shows: one of its results or, for Table 11, a number of classes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

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
SPLITS = {"test": "the test images", "valid": "the validation images"}
NETWORKS = {"ema": "the averaged network", "raw": "the network without averaging"}
OFFSETS = ("none", "logit_adjusted", "seval", "seval_smoothed")
METRICS = {
    "top1": "Top-1 accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "geometric_mean": "Geometric mean of the class recalls",
    "many": "Recall of the many-shot classes",
    "medium": "Recall of the medium-shot classes",
    "few": "Recall of the few-shot classes",
    **dict.fromkeys(CASES, "Number of classes"),
}
PROTOCOLS = {
    "median20": "the median of the last 20 evaluations",
    "mean20": "the mean of the last 20 evaluations",
    "last": "the last evaluation",
    "best_on_valid": "the evaluation that is best on the validation images",
    "best_on_test": "the evaluation that is best on the test images, which flatters: not comparable with the others",
}
#: Where a number is in a record, outermost key first; the first choice is the default.
CHOICES = {
    "split": tuple(SPLITS),
    "network": tuple(NETWORKS),
    "offset": OFFSETS,
    "metric": tuple(METRICS),
    "protocol": tuple(PROTOCOLS),
}
#: The only readings for which a record keeps recall and precision class by class.
_BY_CLASS = {"split": "test", "network": "ema", "protocol": "last"}


class Reading(NamedTuple):
    """The keys under which a number is in a record, as in `CHOICES`."""

    split: str = "test"
    network: str = "ema"
    offset: str = "none"
    metric: str = "top1"
    protocol: str = "median20"

    def of(self, record: Mapping) -> float | None:
        """Percent or a number of classes; None where nothing could be measured. Raises `ConfigError`."""
        if self.metric in CASES:
            return self._classes(record)
        node = record["results"]
        for key in self:
            if key not in node:
                raise ConfigError(
                    f"{'/'.join(self)} is to be read, but run {record['id']} recorded no {key!r} there, "
                    f"only {', '.join(node)}"
                )
            node = node[key]
        return None if node is None else 100 * node

    def _classes(self, record: Mapping) -> float:
        for key, only in _BY_CLASS.items():
            if (given := getattr(self, key)) != only:
                raise ConfigError(
                    f"metric {self.metric} with {key} {given!r}: a record keeps the recall and precision of each class "
                    f"for {key} {only!r} only; set that"
                )
        offsets = record["per_class"]
        if self.offset not in offsets:
            raise ConfigError(f"run {record['id']} recorded no offset {self.offset!r}, only {', '.join(offsets)}")
        return float(class_count(**offsets[self.offset], case=CASES[self.metric]))


def class_count(
    recall: Sequence[float | None], precision: Sequence[float | None], case: tuple[bool, bool] | None
) -> int:
    """How many classes with test images are of that case; a class that is never predicted has low precision."""
    recalls, precisions = (np.array(values, float) for values in (recall, precision))  # None becomes nan
    present = np.isfinite(recalls)
    if case is None:
        return int(present.sum())
    high = [values > np.nanmean(values) for values in (recalls, precisions)]  # nan is not
    return int((present & (high[0] == case[0]) & (high[1] == case[1])).sum())


def mean_std(values: Iterable[float]) -> tuple[float, float]:
    """Mean and population standard deviation, which is what papers of this field print."""
    values = list(values)
    return float(np.mean(values)), float(np.std(values))
