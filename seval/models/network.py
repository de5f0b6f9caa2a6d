"""A backbone and its named classifiers."""

from collections.abc import Callable, Mapping
from typing import Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seval.errors import RecipeError
from seval.models.captured import Captured
from seval.models.wide_resnet import linear
from seval.recipes import Kind


class Cosine(nn.Module):
    """Logits `scale` * cos(feature, class weight): the normalized classifier of LDAM (Cao et al., arXiv 1906.07413)."""

    def __init__(self, in_features: int, out_features: int, scale: float = 30.0) -> None:
        super().__init__()
        self.scale = scale
        self.weight = nn.Parameter(linear(in_features, out_features).weight.detach())
        self.bias = nn.Buffer(torch.zeros(out_features), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        return self.scale * F.linear(F.normalize(features), F.normalize(self.weight))


class Classwise(nn.Module):
    """CPE's class-wise normalization (Ma et al., arXiv 2312.15702): a BatchNorm each for head, medium and tail classes.

    The published layers stand before pooling and see the same input, so that they differ only in their scale and shift,
    which all heads share: `like` takes those of another head. Here they act on pooled features, whose deviation is
    over images alone and not over positions, too. Medium classes begin at rank `medium`, tail classes at rank `tail`.
    """

    def __init__(self, in_features: int, out_features: int, medium: int, tail: int) -> None:
        super().__init__()
        if not 0 < medium <= tail < out_features:
            raise RecipeError(
                f"classwise({medium}, {tail}) of {out_features} classes; cuts must be 0 < medium <= tail < C"
            )
        self.cuts = (0, medium, tail)
        self.norm = nn.BatchNorm1d(in_features, affine=False)
        self.scale = nn.Parameter(torch.ones(3, in_features))
        self.shift = nn.Parameter(torch.zeros(3, in_features))
        self.output = linear(in_features, out_features)

    @property
    def bias(self) -> Tensor:
        return self.output.bias

    @property
    def weight(self) -> Tensor:
        return self.output.weight

    def like(self, other: "Classwise") -> None:
        self.scale, self.shift = other.scale, other.shift

    def groups(self, features: Tensor) -> Tensor:
        """(N, D) -> logits (3, N, C) by the normalization of each group."""
        return self.output(self.norm(features) * self.scale[:, None] + self.shift[:, None])

    def forward(self, features: Tensor) -> Tensor:
        return self.groups(features).mean(0)


#: Each is called with the number of features and the number of classes.
CLASSIFIERS = Kind("classifier", {"linear": linear, "cosine": Cosine, "classwise": Classwise}, given=2)


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
        classwise = [head for head in built.values() if isinstance(head, Classwise)]
        for other in classwise[1:]:
            other.like(classwise[0])
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

    def groups(self, features: Tensor, head: str) -> Tensor:
        """(N, feature_dim) -> logits (G, N, C) of the named head; G is 1 unless its classifier is class-wise.

        Their mean over the groups is what `classify` returns.
        """
        if not isinstance(classifier := self.classifiers[head], Classwise):
            return self.classify(features, head).unsqueeze(0)
        with self._precision(features):
            return classifier.groups(features)

    def cuts(self, head: str) -> tuple[int, ...]:
        """The rank of the first class of each group of the named head, (G,)."""
        return classifier.cuts if isinstance(classifier := self.classifiers[head], Classwise) else (0,)

    @torch.no_grad()
    def blank(self, like: Tensor, color: Tensor | float) -> dict[str, Tensor]:
        """Logits (C,) by head for an image of one normalized color, (c, 1, 1) or a number, of the size of `like`.

        Computed in evaluation mode, so that no statistics move.
        """
        training = self.training
        self.eval()
        features = self.features((torch.zeros_like(like) + color).unsqueeze(0))
        found = {head: self.classify(features, head).float()[0] for head in self.classifiers}
        self.train(training)
        return found

    def weight(self, head: str) -> Tensor:
        """(C, feature_dim) of the named head's classifier, with gradient."""
        return cast(Tensor, self.classifiers[head].weight)

    def bias(self, head: str) -> Tensor:
        """(C,) of the named head's classifier, without gradient. Raises `RecipeError` if there is no such head."""
        if head not in self.classifiers:
            raise RecipeError(
                f"a rule asks for the bias of head {head!r}, but the heads are {', '.join(self.classifiers)}"
            )
        return cast(Tensor, self.classifiers[head].bias).detach()

    def _precision(self, inputs: Tensor) -> torch.autocast:
        return torch.autocast(inputs.device.type, torch.bfloat16, enabled=self.half_precision and self.training)

    def forward(self, images: Tensor) -> Tensor:
        """(N, c, H, W) -> (N, C) logits of the last head."""
        return self.classify(self.features(images), list(self.classifiers)[-1])
