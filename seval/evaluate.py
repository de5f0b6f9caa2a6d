"""Predictions of a network on a split, and what they are worth under every test-time offset and protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, median

import torch
from torch import Tensor

from seval import metrics
from seval.data.augment import normalize
from seval.data.loader import Streamed
from seval.models.network import Network

LAST = 20  # evaluations that the median and mean protocols look at


@torch.no_grad()
def predict(net: Network, head: str, images: Tensor | Streamed, mean: Tensor, std: Tensor, batch: int) -> Tensor:
    """(N, c, H, W) uint8, the evaluation views -> (N, C) float32 logits of one head, in evaluation mode."""
    training = net.training
    net.eval()
    logits = [
        net.classify(net.features(normalize(part, mean, std).contiguous(memory_format=torch.channels_last)), head)
        for part in images.split(batch)
    ]
    net.train(training)
    return torch.cat(logits).float()


def measure(
    logits: Tensor, labels: Tensor, offsets: Mapping[str, Tensor], class_counts: Tensor
) -> dict[str, dict[str, object]]:
    """For each log offset (C,) subtracted from the logits (N, C): the summary, per-class recall and precision."""
    measured = {}
    for name, offset in offsets.items():
        matrix = metrics.confusion((logits - offset).argmax(1), labels, logits.shape[1])
        measured[name] = metrics.summary(matrix, class_counts) | {
            "recall": metrics.numbers(metrics.recall(matrix)),
            "precision": metrics.numbers(metrics.precision(matrix)),
        }
    return measured


def protocols(history: Sequence[dict]) -> dict:
    """Every number of a run under every protocol: results[split][network][offset][metric][protocol].

    last; median20 and mean20 of the last 20 evaluations; best_on_valid: where the balanced validation split (same
    network and offset) is best; best_on_test: the maximum, which selects on the test set and is named for it.
    """
    results: dict = {}
    for split in ("test", "valid"):
        for network, offsets in history[-1].get(split, {}).items():
            for offset in offsets:
                values = [line[split][network][offset] for line in history]
                chosen = _best([line.get("valid", {}).get(network, {}).get(offset, {}).get("top1") for line in history])
                results.setdefault(split, {}).setdefault(network, {})[offset] = {
                    metric: _summarize([value[metric] for value in values], chosen)
                    for metric, value in values[-1].items()
                    if not isinstance(value, list)
                }
    return results


def _summarize(values: list[float | None], chosen: int | None) -> dict[str, float | None]:
    known = [value for value in values[-LAST:] if value is not None]
    return {
        "last": values[-1],
        "median20": median(known) if known else None,
        "mean20": fmean(known) if known else None,
        "best_on_valid": None if chosen is None else values[chosen],
        "best_on_test": max((value for value in values if value is not None), default=None),
    }


def _best(values: list[float | None]) -> int | None:
    """Where the first largest value stands; None where nothing was measured."""
    known = [i for i, value in enumerate(values) if value is not None]
    return max(known, key=lambda i: values[i]) if known else None
