"""Which number of a run's record a cell shows: one of its results or, for Table 11, a number of classes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeGuard

from seval.errors import ConfigError, RecordError
from seval.text import short

if TYPE_CHECKING:  # NumPy and PyTorch take long to import, and who lists runs needs neither
    from seval.run import Run

#: Metrics that are numbers of classes: whether recall and precision are above the average; None counts all classes.
CASES: dict[str, tuple[bool, bool] | None] = {
    "high_recall_low_precision": (True, False),
    "low_recall_high_precision": (False, True),
    "high_recall_high_precision": (True, True),
    "low_recall_low_precision": (False, False),
    "classes": None,
}
#: Metrics of kept pseudo-labels, averaged over the third of the classes with the fewest labels, by what they are.
OF_TAIL = {"tail_precision": "precision", "tail_recall": "recall"}
#: Metrics of all pseudo-labels: Gain and Correctness as the paper defines them (its Figure 3), 100 times.
PSEUDO_LABELS = {"gain": "Gain", "correctness": "Correctness"}
SPLITS = {"test": "the test images", "valid": "the validation images"}
NETWORKS = {"ema": "the averaged network", "raw": "the network without averaging"}
OFFSETS = ("none", "logit_adjusted", "seval", "seval_smoothed", "cdmad", "bias")
METRICS = {
    "top1": "Top-1 accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "geometric_mean": "Geometric mean of the class recalls",
    "many": "Recall of the many-shot classes",
    "medium": "Recall of the medium-shot classes",
    "few": "Recall of the few-shot classes",
    **{name: f"{what.capitalize()} of kept pseudo-labels, rarest third," for name, what in OF_TAIL.items()},
    **{name: f"{what} of the pseudo-labels" for name, what in PSEUDO_LABELS.items()},
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
_OF_PSEUDO_LABELS = {"network": "ema", "protocol": "last"}


class Records:
    """The records of runs, each read once; which of them are damaged is kept in `damaged`, by id."""

    def __init__(self) -> None:
        self.damaged: dict[str, str] = {}
        self._known: dict[str, dict | None] = {}

    def of(self, run: Run) -> dict | None:
        """The record of a run; None if it has none, or one that is damaged. Raises `OSError`."""
        if run.id not in self._known:
            self._known[run.id] = None
            try:
                self._known[run.id] = _checked(run.record())
            except RecordError as error:
                self.refuse(run, error)
        return self._known[run.id]

    def refuse(self, run: Run, error: RecordError) -> None:
        """Take a record for damaged; the error names the file, or what is wrong in it."""
        path, words = str(run.folder / "record.json"), str(error)
        advice = "move it away, and the same command finishes the run from its checkpoint"
        self.damaged[run.id] = words if path in words else f"{path} is damaged ({words}); {advice}"
        self._known[run.id] = None


#: What pages read from a record besides its results.
_KINDS = {"results": dict, "per_class": dict, "provenance": dict, "seconds": (int, float)}


def _checked(record: dict | None) -> dict | None:
    for key, kind in _KINDS.items():
        value = record.get(key) if record else None
        if value is not None and (not isinstance(value, kind) or isinstance(value, float) and not math.isfinite(value)):
            raise RecordError(f"its {key!r} is {short(value)}")
    return record


class Reading(NamedTuple):
    """The keys under which a number is in a record, as in `CHOICES`."""

    split: str = "test"
    network: str = "ema"
    offset: str = "none"
    metric: str = "top1"
    protocol: str = "median20"

    def of(self, record: Mapping) -> float | None:
        """Percent or a number of classes; None where nothing could be measured.

        Raises `ConfigError` if this is not recorded, `RecordError` if what is recorded is no number.
        """
        if self.metric in CASES:
            return self._classes(record)
        if self.metric in (*OF_TAIL, *PSEUDO_LABELS):
            return self._pseudo_labels(record)
        node = record["results"]
        for key in self:
            if not isinstance(node, Mapping):
                raise RecordError(f"its results hold {short(node)} where {key!r} is to be read")
            if key not in node:
                raise ConfigError(
                    f"{'/'.join(self)} is to be read, but run {record['id']} recorded no {key!r} there, "
                    f"only {', '.join(node)}"
                )
            node = node[key]
        if node is not None and not _is_number(node):
            raise RecordError(f"its number for {'/'.join(self)} is {short(node)}")
        return None if node is None else 100 * node

    def _pseudo_labels(self, record: Mapping) -> float | None:
        """None where the run makes no pseudo-labels or, of the tail, keeps none."""
        self._require(_OF_PSEUDO_LABELS)
        found = record.get("pseudo_labels") or {}
        if self.metric in PSEUDO_LABELS:
            known = [found.get(self.metric)]
        else:
            by_class = found.get(OF_TAIL[self.metric]) or []
            counts = record["splits"]["labeled"]["class_counts"]
            tail = sorted(range(len(by_class)), key=lambda c: (counts[c], -c))[: math.ceil(len(by_class) / 3)]
            known = [by_class[c] for c in tail]
        known = [value for value in known if value is not None]
        if wrong := [value for value in known if type(value) not in (int, float)]:
            raise RecordError(f"its {self.metric} of pseudo-labels is {short(wrong[0])}")
        return 100 * math.fsum(known) / len(known) if known else None

    def _require(self, kept: Mapping[str, str]) -> None:
        for key, only in kept.items():
            if (given := getattr(self, key)) != only:
                raise ConfigError(
                    f"metric {self.metric} with {key} {given!r}: a record keeps what it needs for {key} {only!r} only; "
                    "set that"
                )

    def _classes(self, record: Mapping) -> float:
        self._require(_BY_CLASS)
        offsets = record.get("per_class") or {}
        if self.offset not in offsets:
            raise ConfigError(f"run {record['id']} recorded no offset {self.offset!r}, only {', '.join(offsets)}")
        found = offsets[self.offset]
        recall, precision = (found.get(key) if isinstance(found, dict) else None for key in ("recall", "precision"))
        if not (_are_shares(recall) and _are_shares(precision) and len(recall) == len(precision)):
            raise RecordError(f"its recall and precision by class for {self.offset!r} are {short(found)}")
        return float(class_count(recall, precision, CASES[self.metric]))


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value <= 1


def _are_shares(values: object) -> TypeGuard[list]:
    return isinstance(values, list) and all(value is None or _is_number(value) for value in values)


def class_count(
    recall: Sequence[float | None], precision: Sequence[float | None], case: tuple[bool, bool] | None
) -> int:
    """How many classes with test images are of that case; a class that is never predicted has low precision."""
    import numpy as np

    recalls, precisions = (np.array(values, float) for values in (recall, precision))  # None becomes nan
    present = np.isfinite(recalls)
    if case is None:
        return int(present.sum())
    high = [  # nan is not above
        values > (np.nanmean(values) if np.isfinite(values).any() else 0.0) for values in (recalls, precisions)
    ]
    return int((present & (high[0] == case[0]) & (high[1] == case[1])).sum())


def mean_std(values: Iterable[float]) -> tuple[float, float]:
    """Mean and population standard deviation, which is what papers of this field print."""
    import numpy as np

    values = list(values)
    return float(np.mean(values)), float(np.std(values))
