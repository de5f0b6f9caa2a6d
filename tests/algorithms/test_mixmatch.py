from __future__ import annotations

import pytest
import torch

from seval.algorithms import ALGORITHMS
from seval.algorithms.mixmatch import turned
from tests.algorithms.slow import FACTS, VIEWS, B, Linear, N, batch, entropy, error, hard, head, mean, same, softmax


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", ["mixmatch", "remixmatch"])
def test_mixtures_equal_a_slow_loop(name, seed):
    net, given, copies = Linear(), batch(name), len(VIEWS[name])
    guessing, distance, alpha = (2, error, 0.6) if name == "mixmatch" else (1, entropy, 0.75)
    arguments = {"alpha": alpha} if name == "mixmatch" else {}  # the other's is the published one
    torch.manual_seed(seed)
    share = float(torch.distributions.Beta(alpha, alpha).sample())
    share, order = max(share, 1 - share), torch.randperm(B + copies * N).tolist()
    guesses = []
    for views in zip(*given.views[:guessing], strict=True):
        p = mean([softmax(net.logits(x)) for x in views])
        guesses.append(p**2 / sum(p**2))
    rows = [*given.images, *(x for view in given.views for x in view)]
    aims = [*map(hard, given.labels), *guesses * copies]
    zs = [net.logits(share * x + (1 - share) * rows[j]) for x, j in zip(rows, order, strict=True)]
    aims = [share * t + (1 - share) * aims[j] for t, j in zip(aims, order, strict=True)]
    expected = {
        "f/labeled": mean([entropy(t, z) for t, z in zip(aims[:B], zs[:B], strict=True)]),
        "f/unlabeled": 7 * 0.4 * mean([distance(t, z) for t, z in zip(aims[B:], zs[B:], strict=True)]),
    }
    if name == "remixmatch":
        first = given.views[1]
        around = [(hard(k), x.rot90(k, (1, 2))) for x, k in zip(first, torch.randint(4, (N,)).tolist(), strict=True)]
        expected["rotation"] = 0.5 * mean([entropy(t, net.logits(x, "rotation")) for t, x in around])
        expected["f/pre_mixup"] = (
            0.5 * 0.4 * mean([entropy(t, net.logits(x)) for t, x in zip(guesses, first, strict=True)])
        )
    torch.manual_seed(seed)
    algorithm = ALGORITHMS.known[name](FACTS, 7.0, ramp=0.5, **arguments)
    same(algorithm.losses(net, Linear(9), given, [head("sharpen(0.5)")], 0.2), expected, net)


def test_images_are_turned_one_by_one():
    images, turns = torch.arange(2.0 * 8 * 9).view(8, 2, 3, 3), torch.tensor([0, 1, 2, 3, 3, 0, 2, 1])
    by_hand = [torch.rot90(image, k, (1, 2)) for image, k in zip(images, turns.tolist(), strict=True)]
    assert torch.equal(turned(images, turns), torch.stack(by_hand))
