from __future__ import annotations

import numpy as np
import pytest
import torch

from seval import metrics


def test_a_hand_made_confusion():
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 2, 2, -1])
    predicted = torch.tensor([0, 0, 0, 1, 1, 0, 2, 2, 0])
    matrix = metrics.confusion(predicted, labels, 3)
    assert matrix.tolist() == [[3, 1, 0], [1, 1, 0], [0, 0, 2]]
    assert metrics.recall(matrix).tolist() == [0.75, 0.5, 1.0] and metrics.precision(matrix).tolist() == [
        0.75,
        0.5,
        1.0,
    ]
    summary = metrics.summary(matrix, torch.tensor([500, 100, 19]))
    assert summary == pytest.approx(
        {
            "top1": 6 / 8,
            "balanced_accuracy": 0.75,
            "geometric_mean": 0.375 ** (1 / 3),
            "many": 0.75,
            "medium": 0.5,
            "few": 1.0,
        }
    )


def test_empty_groups_and_classes_are_none_not_zero():
    matrix = metrics.confusion(torch.tensor([0, 0]), torch.tensor([0, 1]), 3)
    summary = metrics.summary(matrix, torch.tensor([500, 300, 200]))
    assert summary["few"] is None and summary["balanced_accuracy"] == 0.5 and summary["geometric_mean"] == 0
    assert metrics.numbers(metrics.recall(matrix)) == [1.0, 0.0, None]
    assert metrics.numbers(metrics.precision(matrix)) == [0.5, None, None]


def test_pseudo_label_quality_equals_slow_loops():
    rng = np.random.default_rng(0)
    n, c = 500, 5
    plain, refined = rng.dirichlet(np.ones(c), n), rng.dirichlet(np.ones(c), n)
    labels, kept, counts = rng.integers(0, c, n), rng.random(n) < 0.4, np.array([50.0, 20, 10, 5, 2])
    got = metrics.pseudo_label_quality(*map(torch.tensor, (plain, refined, kept, labels, counts)))
    before, after = plain.argmax(1), refined.argmax(1)
    omega = [counts.sum() / counts[y] for y in labels]
    right = sum(omega[i] for i in range(n) if kept[i] and after[i] == labels[i])
    selected = sum(omega[i] for i in range(n) if kept[i])
    assert got["correctness"] == pytest.approx(right**2 / sum(omega) / selected)

    def balanced(guess):
        return np.mean([np.mean([guess[i] == k for i in range(n) if labels[i] == k]) for k in range(c)])

    assert got["gain"] == pytest.approx(
        np.mean(after == labels) - np.mean(before == labels) + balanced(after) - balanced(before)
    )
    assert got["kept"] == pytest.approx(kept.mean())
    for k in range(c):
        chosen = [i for i in range(n) if kept[i] and after[i] == k]
        assert got["precision"][k] == pytest.approx(np.mean([labels[i] == k for i in chosen]))
        assert got["recall"][k] == pytest.approx(sum(labels[i] == k for i in chosen) / sum(labels == k))


def test_quality_where_nothing_is_kept_or_known():
    probs, labels, counts = torch.eye(3), torch.arange(3), torch.ones(3)
    none = metrics.pseudo_label_quality(probs, probs, torch.zeros(3, dtype=bool), labels, counts)
    assert none["correctness"] == 0 and none["kept"] == 0 and none["precision"] == [None] * 3
    assert metrics.pseudo_label_quality(probs, probs, torch.ones(3, dtype=bool), labels - 5, counts) == {}
