"""Algorithms that train on mixtures of images: MixMatch and ReMixMatch."""

from collections.abc import Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.distributions import Beta

from seval.algorithms.base import Algorithm, Distance, Head, Losses, consistency, step_of
from seval.data.loader import Batch
from seval.errors import RecipeError
from seval.losses import as_probs, ramp, soft_cross_entropy, squared_error
from seval.models.network import Network
from seval.models.wide_resnet import linear
from seval.policy.base import Facts, PseudoLabels, Step, Student


class Mix(NamedTuple):
    """One draw of MixUp for a whole batch: each row is mixed with another row and keeps the larger share."""

    share: float  # in [1/2, 1]
    order: Tensor  # (N,) the other row for each row

    @classmethod
    def draw(cls, n: int, alpha: float, device: torch.device) -> Self:
        share = float(Beta(alpha, alpha).sample())
        return cls(max(share, 1 - share), torch.randperm(n, device=device))

    def __call__(self, rows: Tensor) -> Tensor:
        return self.share * rows + (1 - self.share) * rows[self.order]


class MixMatch(Algorithm):
    """The mean prediction on two weak views, after the policy, is the target of both (Berthelot et al., 1905.02249).

    Sharpening is the rule `sharpen`. Labeled and unlabeled images are mixed with each other, and so are their labels
    and targets. All mixtures go through the network in one forward pass and share BatchNorm statistics; the published
    code interleaves batches for the same purpose.
    """

    views = ("weak", "weak")
    guessing = 2  # the first this many views make the guess
    distance: Distance = staticmethod(squared_error)

    def __init__(self, facts: Facts, unlabeled_weight: float, alpha: float = 0.5, ramp: float = 0.016) -> None:
        super().__init__(facts, unlabeled_weight)
        if alpha < 0.001:
            raise RecipeError(f"alpha of MixUp is {alpha:g}, but must be at least 0.001")
        self.alpha, self.ramp = alpha, ramp

    def losses(self, net: Network, teacher: Network, batch: Batch, heads: Sequence[Head], progress: float) -> Losses:
        with torch.no_grad():
            guessing = net.features(torch.cat(batch.views[: self.guessing]))
        step = step_of(net, teacher, batch, guessing[: len(batch.index)], progress)
        images = torch.cat([batch.images, *batch.views])
        mix = Mix.draw(len(images), self.alpha, images.device)
        extra, turns = self.unmixed(batch)
        features = net.features(torch.cat([mix(images), *extra]))
        mixed, unmixed = features[: len(images)], features[len(images) :]
        known, copies, losses = len(batch.images), len(batch.views), {}
        sizes, weight = [known, len(images) - known], self.unlabeled_weight * ramp(progress, self.ramp)
        for head in heads:
            with torch.no_grad():
                plain = net.classify(guessing, head.name).float().softmax(1)
            guess = head.policy(PseudoLabels.of(plain.unflatten(0, (self.guessing, -1)).mean(0)), step)
            taught, (labeled, unlabeled) = guess.repeat(copies), net.classify(mixed, head.name).float().split(sizes)
            targets = mix(torch.cat([as_probs(batch.labels, labeled.shape[1]), taught.probs]))
            kept = mix(torch.cat([torch.ones_like(targets[:known, 0]), taught.weight]))  # mixed like the images
            pseudo = PseudoLabels(targets[known:], kept[known:])
            losses |= head.losses(
                labeled, targets[:known], progress, unlabeled, pseudo, weight=weight, distance=self.distance
            )
            losses |= self.unmixed_losses(net, head, unmixed, turns, guess, step)
        return losses

    def unmixed(self, batch: Batch) -> tuple[list[Tensor], Tensor]:
        """Unmixed images to train on, and the number of quarter turns of those that are rotated."""
        return [], batch.index[:0]

    def unmixed_losses(
        self, net: Network, head: Head, features: Tensor, turns: Tensor, guess: PseudoLabels, step: Step
    ) -> Losses:
        """The losses of the unmixed images, from their features."""
        return {}


class ReMixMatch(MixMatch):
    """The guess on one weak view is the target of that view and two strong views (Berthelot et al., arXiv 1911.09785).

    Alignment and sharpening are the rules `align | sharpen`. The first strong view is also used unmixed: with weight
    `pre_mixup`, which is ramped up too, and rotated by random quarter turns that the network must predict, with weight
    `rotation`.
    """

    views = ("weak", "strong", "strong")
    resized_first = True
    has_student = True
    rotates = True
    guessing = 1
    distance: Distance = staticmethod(soft_cross_entropy)

    def __init__(
        self,
        facts: Facts,
        unlabeled_weight: float,
        alpha: float = 0.75,
        ramp: float = 0.016,
        pre_mixup: float = 0.5,
        rotation: float = 0.5,
    ) -> None:
        super().__init__(facts, unlabeled_weight, alpha, ramp)
        self.pre_mixup, self.rotation = pre_mixup, rotation

    @classmethod
    def extra_modules(cls, feature_dim: int) -> dict[str, nn.Module]:
        return {"rotation": linear(feature_dim, 4)}

    def unmixed(self, batch: Batch) -> tuple[list[Tensor], Tensor]:
        strong = batch.views[1]
        turns = torch.randint(4, (len(strong),), device=strong.device)
        return [strong, turned(strong, turns)], turns

    def unmixed_losses(
        self, net: Network, head: Head, features: Tensor, turns: Tensor, guess: PseudoLabels, step: Step
    ) -> Losses:
        strong, rotated = features.chunk(2)
        student = Student(net.classify(strong, head.name).float(), strong)
        telling = soft_cross_entropy(net.classify(rotated, "rotation").float(), as_probs(turns, 4))
        weight = self.pre_mixup * ramp(step.progress, self.ramp)
        return {
            f"{head.name}/pre_mixup": weight * consistency(student.logits, guess),
            "rotation": self.rotation * telling.mean(),
            **head.penalties(guess, step, student),
        }


def turned(images: Tensor, turns: Tensor) -> Tensor:
    """Rotate each of the square images (N, c, H, H) counterclockwise by its number (N,) of quarter turns, 0 to 3."""
    every = torch.stack([images.rot90(k, (2, 3)) for k in range(4)])
    return every[turns, torch.arange(len(images), device=images.device)]
