"""A linear network, small batches, and losses an image at a time."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from seval.algorithms.base import Head
from seval.data.loader import Batch
from seval.losses import LABELED_LOSSES
from seval.policy.base import Facts
from seval.policy.language import build_policy

C, D, B, N, SIDE = 4, 6, 5, 12, 4
COUNTS = torch.tensor([200.0, 30, 8, 60])  # in no order
LOG_PRIOR = torch.log(COUNTS / COUNTS.sum())
FACTS = Facts(C, COUNTS, 100, feature_dim=D)
VIEWS = dict(supervised=(), pseudo_label=("weak",), mean_teacher=("weak",) * 2, mixmatch=("weak",) * 2)
VIEWS |= dict(fixmatch=("weak", "strong"), usadtm=("eval", "weak", "strong"))
VIEWS["cossl"] = VIEWS["fixmatch"]  # of the class; its instances have two strong views
VIEWS |= dict.fromkeys(("remixmatch", "acr", "ccl"), ("weak", "strong", "strong"))


class Linear(nn.Module):
    """Features are linear in the image and logits in the features, so that each image can be seen on its own."""

    @torch.random.fork_rng()
    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.map = nn.Parameter(torch.randn(SIDE * SIDE, D) / SIDE)
        self.heads = nn.ParameterDict({"f": torch.randn(D, C), "g": torch.randn(D, C), "rotation": torch.randn(D, 4)})

    def features(self, images: Tensor) -> Tensor:
        return images.flatten(1) @ self.map

    def classify(self, features: Tensor, head: str) -> Tensor:
        return features @ self.heads[head]

    def groups(self, features: Tensor, head: str) -> Tensor:
        return self.classify(features, head).unsqueeze(0)

    def cuts(self, head: str) -> tuple[int, ...]:
        return (0,)

    def logits(self, image: Tensor, head: str = "f") -> Tensor:
        """(C,) of one image."""
        return self.classify(self.features(image[None]), head)[0]


def batch(name: str, seed: int = 1, scale: float = 1.0, side: int = SIDE) -> Batch:
    g = torch.Generator().manual_seed(seed)
    views = tuple(scale * torch.randn(N, 1, side, side, generator=g) for _ in VIEWS[name])
    images, labels = torch.randn(B, 1, side, side, generator=g), torch.randint(C, (B,), generator=g)
    return Batch((images,), labels, views, torch.randperm(100, generator=g)[:N])


def head(policy: str, name: str = "f", loss: str = "cross_entropy") -> Head:
    return Head(name, LABELED_LOSSES.build(loss, COUNTS), build_policy(policy, FACTS))


def softmax(z: Tensor) -> Tensor:
    return torch.exp(z - z.max()) / torch.exp(z - z.max()).sum()


def entropy(target: Tensor, z: Tensor) -> Tensor:
    """Cross-entropy of one row; the target is a constant."""
    return sum(-t * (z[c] - torch.logsumexp(z, 0)) for c, t in enumerate(target.tolist()))


def error(target: Tensor, z: Tensor) -> Tensor:
    return sum((t - softmax(z)[c]) ** 2 for c, t in enumerate(target.tolist())) / len(z)


def hard(label: int) -> Tensor:
    return torch.tensor([float(c == label) for c in range(C)])


def mean(values: list) -> Tensor:
    return sum(values) / len(values)


def labeled(net: Linear, given: Batch, name: str = "f", offset: Tensor | float = 0.0) -> Tensor:
    rows = zip(given.images, given.labels, strict=True)
    return mean([entropy(hard(y), net.logits(x, name) + offset) for x, y in rows])


def same(found: dict[str, Tensor], expected: dict[str, Tensor], net: nn.Module) -> None:
    """Equal losses, and equal gradients of their sum."""
    assert found.keys() == expected.keys()
    for name, loss in found.items():
        assert loss.shape == () and torch.allclose(loss, expected[name], rtol=1e-4, atol=1e-6), name
    weights = list(net.parameters())
    both = [torch.autograd.grad(sum(d.values()), weights, materialize_grads=True) for d in (found, expected)]
    assert all(torch.allclose(a, b, rtol=1e-3, atol=1e-4) for a, b in zip(*both, strict=True))
