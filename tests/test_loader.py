from __future__ import annotations

import math

import torch

from seval.data.loader import IndexStream, class_weights


def test_class_weights_make_every_class_equally_likely():
    counts, g = (64, 7, 16, 0, 1, 3), torch.Generator().manual_seed(0)
    labels = torch.tensor([c for c, n in enumerate(counts) for _ in range(n)])
    labels = labels[torch.randperm(len(labels), generator=g)]
    weights, draws = class_weights(labels), 64 * 400
    stream = IndexStream(len(labels), 64, g, weights)
    times = torch.bincount(torch.cat([next(stream) for _ in range(400)]), minlength=len(labels))
    for c, n in enumerate(counts):
        assert math.isclose(float(weights[labels == c].sum()), n > 0, abs_tol=1e-12)
        for chance, seen in ((0.2 * (n > 0), times[labels == c].sum()), *((0.2 / n, t) for t in times[labels == c])):
            assert abs(float(seen) - chance * draws) <= 5 * math.sqrt(draws * chance * (1 - chance))
