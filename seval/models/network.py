"""A backbone and its named classifiers."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from seval.config import Node
from seval.models.resnet import cifar_resnet50, resnet50
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
    """The configured network; its weights are drawn from PyTorch's global generator.

    Raises `ConfigError` where pretrained weights are asked for and cannot be had.
    """
    return Network(_backbone(cfg.MODEL, in_channels), heads, num_classes)


def _backbone(model: Node, in_channels: int) -> nn.Module:
    match model.NAME:
        case "resnet50":
            return resnet50(in_channels, model.PRETRAINED, model.WEIGHTS)
        case "cifar_resnet50":
            return cifar_resnet50(in_channels)
        case _:
            return WideResNet(model.DEPTH, model.WIDTH, 0, in_channels)
