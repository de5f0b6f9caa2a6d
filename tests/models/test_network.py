from __future__ import annotations

import math

import pytest
import torch

from seval.models.network import CLASSIFIERS, Network
from seval.models.wide_resnet import WideResNet


def test_each_head_reads_the_same_features_and_the_last_is_called():
    net = Network(WideResNet(10, 1, 0, 1), {"linear": "linear", "balanced": "cosine"}, 3).eval()
    x = torch.randn(2, 1, 8, 8)
    assert torch.equal(net(x), net.classify(net.features(x), "balanced"))
    assert not torch.equal(net(x), net.classify(net.features(x), "linear"))


@pytest.mark.parametrize("scale", [30.0, 7.0])
def test_a_cosine_classifier_is_scale_times_cosine_without_bias(scale):
    torch.manual_seed(0)
    classifier, features = CLASSIFIERS.known["cosine"](6, 4, scale=scale), 3 * torch.randn(12, 6)
    ((w, got),) = [(p.detach(), classifier(features).detach()) for p in classifier.parameters()]
    for i in range(12):
        for c in range(4):
            cosine = sum(features[i] * w[c]) / math.sqrt(sum(features[i] ** 2) * sum(w[c] ** 2))
            assert math.isclose(float(got[i, c]), scale * float(cosine), rel_tol=1e-4, abs_tol=1e-5)
