from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from seval.models.wide_resnet import WideResNet


def test_wrn_28_2_has_the_published_number_of_parameters():
    assert sum(p.numel() for p in WideResNet(28, 2, 10, 3).parameters()) == 1_467_610


@pytest.mark.parametrize(("depth", "width", "channels"), [(10, 1, 1), (16, 4, 3)])
def test_depth_width_and_channels_are_free(depth, width, channels):
    net = WideResNet(depth, width, 5, channels).eval()
    assert net(torch.zeros(3, channels, 16, 16)).shape == (3, 5) and net.feature_dim == 64 * width
    assert WideResNet(depth, width, 0, channels).eval()(torch.zeros(1, channels, 16, 16)).shape == (1, 64 * width)


def test_a_depth_that_is_not_6n_plus_4_is_refused():
    with pytest.raises(ValueError, match="6n"):
        WideResNet(27, 2, 10, 3)


def test_forward_equals_the_layers_written_out():
    """Only the first block's shortcut sees the activation; the slope is 0.1 everywhere."""
    torch.manual_seed(0)
    net = WideResNet(10, 1, 4, 1)
    x = torch.randn(6, 1, 8, 8)

    def bn(norm, x):
        m, v = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), unbiased=False, keepdim=True)
        return (x - m) / (v + 1e-5).sqrt() * norm.weight.view(1, -1, 1, 1) + norm.bias.view(1, -1, 1, 1)

    def act(x):
        return torch.where(x > 0, x, 0.1 * x)

    h = F.conv2d(x, net.stem.weight, padding=1)
    for i, (b, stride) in enumerate(zip(net.blocks, (1, 2, 2), strict=True)):
        a = act(bn(b.norm1, h))
        out = F.conv2d(
            act(bn(b.norm2, F.conv2d(a, b.conv1.weight, stride=stride, padding=1))), b.conv2.weight, padding=1
        )
        source = a if i == 0 else h
        h = out + (
            source if isinstance(b.shortcut, torch.nn.Identity) else F.conv2d(source, b.shortcut.weight, stride=stride)
        )
    logits = act(bn(net.norm, h)).mean((2, 3)) @ net.classifier.weight.T + net.classifier.bias
    assert torch.allclose(net(x), logits, atol=1e-4)


def test_initialization_is_the_published_one():
    torch.manual_seed(0)
    net = WideResNet(28, 2, 10, 3)
    conv = net.blocks[-1].conv2.weight  # 128 x 128 x 3 x 3, fan-out 1152
    assert conv.std().item() == pytest.approx(math.sqrt(2 / 1152), rel=0.02)
    assert net.classifier.weight.std().item() == pytest.approx(math.sqrt(2 / (128 + 10)), rel=0.1)
    assert not net.classifier.bias.any()
    assert all(m.momentum == 0.1 and m.eps == 1e-5 for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d))
