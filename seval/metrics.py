"""Metrics as pure functions of predictions and labels."""

import torch
from torch import Tensor

#: Many-, medium- and few-shot classes: over 100, 20 to 100, under 20 labeled images (Liu et al., arXiv 1904.05160).
SHOTS = {"many": (101, float("inf")), "medium": (20, 100), "few": (0, 19)}


def confusion(predicted: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """(C, C) float64 counts; rows are true classes, columns predicted ones. Labels below 0 (unknown) do not count."""
    known = labels >= 0
    flat = labels[known] * num_classes + predicted[known]
    return torch.bincount(flat, minlength=num_classes**2).reshape(num_classes, num_classes).double()


def recall(matrix: Tensor) -> Tensor:
    """(C,) share of each true class that is predicted correctly; nan for a class without images."""
    return matrix.diagonal() / matrix.sum(1)


def precision(matrix: Tensor) -> Tensor:
    """(C,) share of the predictions of each class that are correct; nan for a class that is never predicted."""
    return matrix.diagonal() / matrix.sum(0)


def summary(matrix: Tensor, class_counts: Tensor) -> dict[str, float | None]:
    """Top-1, balanced accuracy (mean recall), geometric mean of recalls, mean recall of many/medium/few-shot classes.

    `class_counts` (C,) are the labeled training images. Classes without test images are left out; an empty group gives
    None. A class with recall 0 makes the geometric mean 0.
    """
    recalls = recall(matrix)
    present = recalls.isfinite()
    values = {
        "top1": _number(matrix.trace() / matrix.sum()),
        "balanced_accuracy": _number(recalls[present].mean()),
        "geometric_mean": _number(recalls[present].log().mean().exp()),
    }
    for name, (low, high) in SHOTS.items():
        group = present & (class_counts.to(matrix.device) >= low) & (class_counts.to(matrix.device) <= high)
        values[name] = _number(recalls[group].mean())
    return values


def pseudo_label_quality(plain: Tensor, refined: Tensor, kept: Tensor, labels: Tensor, class_counts: Tensor) -> dict:
    """Quality of the pseudo-labels of those unlabeled images whose true labels are known (SEVAL, section 5).

    plain, refined: (N, C) predictions before and after the policy; kept: (N,) bool; labels: (N,), below 0 is unknown;
    class_counts: (C,) labeled images, for the class weights omega = 1 / frequency.
    precision, recall: (C,) of the kept pseudo-labels. gain: change of accuracy plus change of balanced accuracy by the
    refinement. correctness: (C_w / sum omega)(C_w / sum of kept omega); C_w sums omega over kept, correct images.
    The published code records these with pi in place of log pi.
    """
    known = labels >= 0
    plain, refined, kept, labels = plain[known].argmax(1), refined[known].argmax(1), kept[known], labels[known]
    if not len(labels):
        return {}
    num_classes = len(class_counts)
    before, after = confusion(plain, labels, num_classes), confusion(refined, labels, num_classes)
    selected = confusion(refined[kept], labels[kept], num_classes)
    omega = (class_counts.sum() / class_counts).to(labels.device).double()[labels]
    right = omega[kept & (refined == labels)].sum()
    accuracy, balanced = after.trace() - before.trace(), recall(after).nanmean() - recall(before).nanmean()
    return {
        "kept": _number(kept.double().mean()),
        "accuracy_before": _number(before.trace() / before.sum()),
        "accuracy_after": _number(after.trace() / after.sum()),
        "accuracy_kept": _number(selected.trace() / selected.sum()),
        "gain": _number(accuracy / len(labels) + balanced),
        "correctness": _number((right / omega.sum()) * (right / omega[kept].sum())) if kept.any() else 0.0,
        "precision": numbers(precision(selected)),
        "recall": numbers(selected.diagonal() / before.sum(1)),
        "share_predicted": numbers(after.sum(0) / after.sum()),
        "share_true": numbers(after.sum(1) / after.sum()),
    }


def numbers(values: Tensor) -> list[float | None]:
    """A list for JSON; values that are not finite become None."""
    return [_number(value) for value in values]


def _number(value: Tensor) -> float | None:
    number = float(value)
    return number if number == number and abs(number) != float("inf") else None
