from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from seval.models.ema import Ema
from seval.models.network import Network
from seval.models.wide_resnet import WideResNet


def test_ema_equals_a_slow_loop_over_weights_and_buffers():
    torch.manual_seed(0)
    net = Network(WideResNet(10, 1, 0, 1), {"linear": "linear"}, 3)
    ema = Ema(net, 0.8)
    expected = {name: value.double().clone() for name, value in net.state_dict().items()}
    for step in range(8):
        with torch.no_grad():
            for p in net.parameters():
                p.add_(torch.randn_like(p))
        net(torch.randn(4, 1, 8, 8))
        ema.update(step)
        decay = min(1 - 1 / (step + 1), 0.8)
        for name, value in net.state_dict().items():
            floating = value.is_floating_point()
            expected[name] = decay * expected[name] + (1 - decay) * value.double() if floating else value
        if step == 0:
            assert all(
                torch.equal(a, b)
                for a, b in zip(ema.network.state_dict().values(), net.state_dict().values(), strict=True)
            )
    for name, value in ema.network.state_dict().items():
        assert np.allclose(value.double().numpy(), expected[name].numpy(), rtol=1e-5, atol=1e-6), name
    assert not ema.network.training and not any(p.requires_grad for p in ema.network.parameters())


def counting() -> nn.Module:
    """A module without parameters, whose only state is a whole number."""
    module = nn.Module()
    module.steps = nn.Buffer(torch.zeros((), dtype=torch.int64))
    return module


@pytest.mark.parametrize("net", [nn.Linear(3, 2), nn.BatchNorm1d(3), nn.BatchNorm1d(3, affine=False), counting()])
def test_a_network_may_have_any_kinds_of_state(net):
    """Without integer buffers, with some, and with nothing else."""
    ema = Ema(net, 0.5)
    for step in range(3):
        with torch.no_grad():
            for value in net.state_dict().values():
                value.add_(1)
        ema.update(step)
        for name, value in net.state_dict().items():
            average = ema.network.state_dict()[name]
            assert (
                torch.equal(average, value) if step == 0 or not value.is_floating_point() else (average < value).all()
            )


def test_a_decay_of_zero_gives_the_trained_network_itself():
    torch.manual_seed(0)
    net = nn.Linear(5, 4)
    ema = Ema(net, 0.0)
    for step in range(4):
        with torch.no_grad():
            net.weight.add_(torch.randn_like(net.weight))
        ema.update(step)
        assert torch.equal(ema.network.weight, net.weight) and torch.equal(ema.network.bias, net.bias)
