"""What holds for every algorithm."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch

from seval.algorithms import ALGORITHMS
from seval.models.network import Network
from seval.models.wide_resnet import WideResNet
from tests.algorithms.slow import FACTS, VIEWS, C, batch, head


def test_views_are_the_published_ones():
    assert {name: algorithm.views for name, algorithm in ALGORITHMS.known.items()} == VIEWS


@pytest.mark.parametrize("frozen", [True, False])
def test_a_frozen_backbone_keeps_weights_and_statistics_bit_for_bit(frozen):
    torch.manual_seed(0)
    net = Network(WideResNet(10, 1, 0, 1), {"f": "linear"}, C, frozen=frozen).train()
    before, algorithm = deepcopy(net.state_dict()), ALGORITHMS.known["supervised"](FACTS, 1.0)
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], 0.1, 0.9, weight_decay=0.01)
    for seed in range(2):
        optimizer.zero_grad()
        algorithm.losses(net, net, batch("supervised", seed, side=8), [head("")], 0.0)["f/labeled"].backward()
        optimizer.step()
    for key, value in net.state_dict().items():
        assert torch.equal(value, before[key]) == (frozen and key.startswith("backbone.")), key
