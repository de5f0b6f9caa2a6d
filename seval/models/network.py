"""A backbone and its named classifiers."""

from collections.abc import Callable, Mapping
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seval.models.captured import Captured
from seval.models.wide_resnet import linear
from seval.recipes import Kind


class Cosine(nn.Module):
    """Logits `scale` * cos(feature, class weight): the normalized classifier of LDAM (Cao et al., arXiv 1906.07413)."""

    def __init__(self, in_features: int, out_features: int, scale: float = 30.0) -> None:
        super().__init__()
        self.scale = scale
        self.weight = nn.Parameter(linear(in_features, out_features).weight.detach())

    def forward(self, features: Tensor) -> Tensor:
        return self.scale * F.linear(F.normalize(features), F.normalize(self.weight))


#: Each is called with the number of features and the number of classes.
CLASSIFIERS = Kind("classifier", {"linear": linear, "cosine": Cosine}, given=2)


class Network(nn.Module):
    """`backbone` turns images into features (N, `backbone.feature_dim`); each head has a classifier of its own.

    `heads` maps the names of the heads to recipes of `CLASSIFIERS`. Calling the network returns the last head's logits.
    `auxiliary` takes the number of features and returns an algorithm's own modules by name. A `frozen` backbone is not
    trained and keeps its BatchNorm statistics. With `half`, training computes features and logits in bfloat16 under
    autocast; losses and rules are computed outside autocast.
    """

    def __init__(
        self,
        backbone: nn.Module,
        heads: Mapping[str, str],
        num_classes: int,
        auxiliary: Callable[[int], Mapping[str, nn.Module]] | None = None,
        *,
        frozen: bool = False,
        half: bool = False,
    ) -> None:
        super().__init__()
        self.half_precision = half
        self.backbone, self.frozen = backbone.requires_grad_(not frozen), frozen
        assert isinstance(backbone.feature_dim, int)
        self.feature_dim = backbone.feature_dim
        built = {head: CLASSIFIERS.build(text, self.feature_dim, num_classes) for head, text in heads.items()}
        self.classifiers = nn.ModuleDict(built)
        self.backbone.train(not frozen)
        self.auxiliary = nn.ModuleDict(auxiliary(self.feature_dim) if auxiliary else {})
        self.captured: Captured | None = None  # what computes the features of training, in place of the backbone

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self

    def features(self, images: Tensor) -> Tensor:
        """(N, c, H, W) -> (N, feature_dim)."""
        if self.captured and self.backbone.training and torch.is_grad_enabled():
            return self.captured(images)
        with self._precision(images):
            return self.backbone(images)

    def classify(self, features: Tensor, head: str) -> Tensor:
        """(N, feature_dim) -> logits (N, C) of the named head, or of an auxiliary module."""
        with self._precision(features):
            return (self.classifiers if head in self.classifiers else self.auxiliary)[head](features)

    def _precision(self, inputs: Tensor) -> torch.autocast:
        return torch.autocast(inputs.device.type, torch.bfloat16, enabled=self.half_precision and self.training)

    def forward(self, images: Tensor) -> Tensor:
        """(N, c, H, W) -> (N, C) logits of the last head."""
        return self.classify(self.features(images), list(self.classifiers)[-1])
