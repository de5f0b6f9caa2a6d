from __future__ import annotations

from copy import deepcopy

import pytest
import torch

from seval.build import build_network, check_penalties
from seval.config import load
from seval.errors import ConfigError
from tests.algorithms.slow import head


def test_a_penalty_on_a_view_that_is_only_mixed_is_refused():
    with pytest.raises(ConfigError, match="mixmatch"):
        check_penalties("mixmatch", [head("sharpen").policy, head("daso(alignment=1.0)").policy])
    check_penalties("mixmatch", [head("daso(alignment=0.0)").policy])
    check_penalties("fixmatch", [head("daso(alignment=1.0)").policy])


@pytest.mark.parametrize(
    ("name", "published", "features"),
    [("wide_resnet", "WRN", 128), ("resnet50", "ResNet", 2048), ("cifar_resnet50", "ResNet50_cifar", 2048)],
)
def test_the_configuration_picks_the_backbone(name, published, features):
    cfg = load((), ["MODEL.NAME", published])
    assert cfg.MODEL.NAME == name
    net = build_network(cfg, 7, 3).eval()
    with torch.no_grad():
        assert net.backbone.feature_dim == features and net(torch.zeros(1, 3, 16, 16)).shape == (1, 7)
        assert deepcopy(net).features(torch.zeros(1, 3, 16, 16)).shape == (1, features)
