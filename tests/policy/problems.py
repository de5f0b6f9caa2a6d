"""Held-out sets for the two fits: common, extreme and degenerate ones."""

import numpy as np


def problem(seed, classes=10, samples=400, imbalance=20.0, margin=2.0, scale=1.5, prior=0.7):
    """Logits (N, C) of a classifier biased towards frequent classes, long-tailed labels (N,) without absent classes."""
    rng = np.random.default_rng(seed)
    frequency = imbalance ** -np.linspace(0, 1, classes)
    labels = rng.choice(classes, samples, p=frequency / frequency.sum())
    labels[:classes] = np.arange(classes)
    logits = scale * rng.normal(size=(samples, classes)) + prior * np.log(frequency)
    logits[np.arange(samples), labels] += margin
    return logits, labels


def absent(logits, labels, missing):
    kept = ~np.isin(labels, missing)
    return logits[kept], labels[kept]


def separable(seed, classes=6, samples=120):
    logits, labels = problem(seed, classes, samples)
    logits[np.arange(samples), labels] = logits.max(axis=1) + 5
    return logits, labels


def hard_problems():
    """Pairs (name, logits, labels): common, extreme and degenerate held-out sets."""
    for seed in range(12):
        rng = np.random.default_rng(seed)
        classes = int(rng.integers(2, 9))
        yield f"random {seed}", *problem(seed, classes, int(rng.integers(20, 300)), imbalance=10 ** rng.uniform(0, 2.5))
    for seed in range(6):
        yield f"saturated {seed}", *problem(seed, 5, 120, scale=40.0, margin=60.0, prior=20.0)
        yield f"uninformative {seed}", *problem(seed, 5, 120, scale=0.05, margin=0.0, prior=0.0)
        yield f"biased beyond the bounds {seed}", *problem(seed, 4, 80, prior=8.0)
        yield f"separable {seed}", *separable(seed)
        yield f"absent {seed}", *absent(*problem(seed, 6, 150), missing=[seed])
    yield "two absent", *absent(*problem(7, 7, 150), missing=[0, 5])
    yield "one class only", *absent(*problem(8, 4, 100), missing=[0, 1, 3])
    yield "one sample", np.array([[0.3, -1.0, 2.0]]), np.array([0])


HARD = list(hard_problems())
HARD_NAMES = [name for name, *_ in HARD]
