"""The continuous contrastive losses of CCL: classes by a Gaussian kernel (Zhou et al., arXiv 2410.06109).

Points are unit vectors (n, K). Members are points with labels (m, C) >= 0, of which each class has some.
"""

import torch
from torch import Tensor

TEMPERATURE = 0.1  # of the kernel
SPREAD = 0.2  # beta of Eq. 21: share of a point's label that comes from unlabeled neighbors
SHARPNESS = 4  # power of a target


def kernel(points: Tensor, members: Tensor) -> Tensor:
    """exp(a . b / 0.1) of each pair: (..., n, K) and (m, K) -> (..., n, m)."""
    return (points @ members.mT / TEMPERATURE).exp()


def class_probs(similarity: Tensor, labels: Tensor, own: Tensor | float = 0.0) -> Tensor:
    """Probabilities (..., n, C) by the mean similarity (..., n, m) to the members of each class (Eq. 10, 16).

    P_y is proportional to sum_j k_ij labels_jy / (sum_j labels_jy - own_iy). `own` (n, C) are the labels of points that
    are members themselves; their similarity to themselves must be 0.
    """
    found = similarity @ labels / (labels.sum(0) - own)
    return found / found.sum(-1, keepdim=True)


def propagated(near: Tensor, points: Tensor) -> Tensor:
    """P = (I - beta G)^-1 (1 - beta) A for near labels A (..., n, C) (Eq. 21); rows of G: softmax of points . points.

    (I - M)^-1 is (I + M)(I + M^2)(I + M^4)(I + M^8) up to M^16, here below 1e-11: a solver would make a GPU wait.
    """
    found, spread = (1 - SPREAD) * near, SPREAD * (points @ points.mT).softmax(-1)
    for _ in range(4):
        found, spread = found + spread @ found, spread @ spread
    return found


def sharpened(probs: Tensor) -> Tensor:
    """probs^4, scaled to rows (..., C) of sum 1."""
    power = probs**SHARPNESS
    return power / power.sum(-1, keepdim=True)


def smoothed_loss(views: Tensor, members: Tensor, labels: Tensor) -> Tensor:
    """L_spl (Eq. 18) of weak, strong and strong views (3, n, K), with P of Eq. 21 for each view.

    1/3 [H(t, P_1) + H(t, P_2) + H(m, m)], t = sharpened P of the weak view, constant, m = (P_1 + P_2) / 2. The paper
    has H(P_weak, P_strong).
    """
    weak, *strong = propagated(class_probs(kernel(views, members), labels), views)
    middle, target = sum(strong) / len(strong), sharpened(weak.detach())
    pairs = [*((target, probs) for probs in strong), (middle, middle)]
    return torch.stack([-(p * q.log()).sum(1).mean() for p, q in pairs]).mean()


def reliable_loss(members: Tensor, labels: Tensor, centers: int) -> Tensor:
    """L_rpl (Eq. 17): mean cross-entropy of each member's label and its class by all other members.

    The first `centers` members only attract. A member whose labels are all 0 does not take part.
    """
    itself = torch.eye(len(members), dtype=torch.bool, device=members.device)[centers:]
    anchors = labels[centers:]
    probs = class_probs(kernel(members[centers:], members).masked_fill(itself, 0.0), labels, anchors)
    return -(anchors * probs.log()).sum() / anchors.sum()
