"""A backbone and its named classifiers."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from seval.config import Node
from seval.models.wide_resnet import WideResNet, linear


class Network(nn.Module):
    """`backbone` turns images into features (N, `backbone.feature_dim`); each head has a linear classifier of its own.

    The last head is the one evaluated: calling the network gives its logits.
    """

    def __init__(self, backbone: nn.Module, heads: Iterable[str], num_classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.classifiers = nn.ModuleDict({head: linear(backbone.feature_dim, num_classes) for head in heads})

    def features(self, images: Tensor) -> Tensor:
        """(N, c, H, W) -> (N, feature_dim)."""
        return self.backbone(images)

    def classify(self, features: Tensor, head: str) -> Tensor:
        """(N, feature_dim) -> (N, C) logits of the named head."""
        return self.classifiers[head](features)

    def forward(self, images: Tensor) -> Tensor:
        """(N, c, H, W) -> (N, C) logits of the last head."""
        return self.classify(self.features(images), list(self.classifiers)[-1])


def build(cfg: Node, heads: Iterable[str], num_classes: int, in_channels: int) -> Network:
    """The configured network; its weights are drawn from PyTorch's global generator."""
    return Network(WideResNet(cfg.MODEL.DEPTH, cfg.MODEL.WIDTH, 0, in_channels), heads, num_classes)
