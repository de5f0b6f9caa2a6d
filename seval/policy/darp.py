"""DARP: refine all pseudo-labels together to a target class distribution, and estimate that distribution."""

from collections.abc import Callable
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from seval.errors import PolicyError
from seval.policy.base import Facts, HeldOut, PseudoLabels, Rule, Step

TINY = 1e-6


def remove_noise(probs: Tensor, target: Tensor, alpha: float) -> Tensor:
    """Keep the alpha * target likeliest images of each class, scale their sum to the target, normalize the rows."""
    ranks = probs.argsort(dim=0, descending=True, stable=True).argsort(dim=0)
    kept = probs * (ranks < (alpha * target).floor())
    kept = kept * ((target + TINY) / (kept.sum(0) + TINY)) + TINY
    return kept / kept.sum(1, keepdim=True)


def refine(probs: Tensor, target: Tensor, alpha: float = 2.0, iterations: int = 10) -> Tensor:
    """DARP's convex program (Kim et al., arXiv 2007.08844, Alg. 1): (M, C), target class counts (C,) -> (M, C).

    Alternately makes the rows sum to 1 and the columns sum to `target`; rows with low entropy change less. The column
    equations are solved by Newton's method on their logarithm. The published code uses a secant method, stopped early.
    Asking whether it has converged would make a GPU wait: there, all of its steps are done and change nothing more.
    """
    probs, target = remove_noise(probs.double(), target.double(), alpha), target.double().clamp_min(TINY)
    entropy = -(probs * torch.log(probs + TINY)).sum(1, keepdim=True)
    log_probs, nu = probs.log(), torch.ones_like(target)
    for _ in range(iterations):
        rows = torch.logsumexp(log_probs - nu * entropy, 1, keepdim=True)
        nu = _columns(log_probs - rows, entropy, target.log(), nu)
    return (log_probs - nu * entropy).softmax(1)


def _columns(log_scaled: Tensor, entropy: Tensor, log_target: Tensor, nu: Tensor) -> Tensor:
    """Solve sum_n exp(log_scaled - nu entropy) = target for nu (C,). The logarithm of the sum is convex in nu."""
    done = torch.zeros((), dtype=torch.bool, device=nu.device)
    for _ in range(30):
        terms = log_scaled - nu * entropy
        excess = torch.logsumexp(terms, 0) - log_target
        slope = (terms.softmax(0) * entropy).sum(0).clamp_min(1e-9)
        change = excess / slope
        nu = torch.where(done, nu, (nu + change).clamp(-1e7, 1e7))  # confident predictions change only with a large nu
        done = done | (change.abs() < TINY * nu.abs().clamp_min(1)).all()
        if done.device.type == "cpu" and done:
            break
    return nu


class Darp(Rule):
    """Distribution aligning refinery of pseudo-labels (Kim et al., arXiv 2007.08844).

    After the share `start` of training, the last predictions of all unlabeled images are refined together at every
    `period`-th step of the run. As published, rows are uniform from `start` to the first refinement, so that a
    threshold drops them. The target distribution is the prerequisite's estimate or, without one, that of the labels.
    """

    def __init__(
        self, facts: Facts, alpha: float = 2.0, start: float = 0.4, period: int = 10, iterations: int = 10
    ) -> None:
        super().__init__()
        self.alpha, self.start, self.period, self.iterations = alpha, start, period, iterations
        if min(period, iterations) < 1 or alpha <= 0:
            raise PolicyError(f"darp period {period}, iterations {iterations} and alpha {alpha:g} must be positive")
        counts = torch.as_tensor(facts.artifacts.get("unlabeled_counts", facts.class_counts)).double()
        if not counts.sum() > 0:
            raise PolicyError("the estimate run accepted no estimate of the unlabeled distribution; train it longer")
        self.target = nn.Buffer(counts * facts.num_unlabeled / counts.sum(), persistent=False)
        uniform = torch.full((facts.num_unlabeled, facts.num_classes), 1 / facts.num_classes)
        self.table = nn.Buffer(uniform)  # last prediction of each image
        self.refined = nn.Buffer(uniform.clone())
        self.steps = nn.Buffer(torch.zeros((), dtype=torch.int64))  # stays on the CPU, where it is read at every step

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        steps = self.steps
        super()._apply(fn, recurse)
        self.steps = steps
        return self

    def forward(self, pseudo: PseudoLabels, step: Step | None) -> PseudoLabels:
        if step is None:
            return pseudo  # which images these are is only known in training
        self.table[step.index] = pseudo.probs.to(self.table.dtype)
        self.steps += 1
        if step.progress < self.start:
            return pseudo
        if self.steps % self.period == 0:
            self.refined.copy_(refine(self.table, self.target, self.alpha, self.iterations))
        return pseudo._replace(probs=self.refined[step.index].to(pseudo.probs.dtype))


class DarpEstimate(Rule):
    """DARP's estimate q (C,) of the unlabeled class counts (appendix C). Does not change pseudo-labels.

    Solves (held-out confusion matrix) q = summed predictions on unlabeled images. Averages over the evaluations whose
    matrix has a condition number below `condition` and whose counts are all >= 0.
    """

    def __init__(self, facts: Facts, condition: float = 100.0) -> None:
        super().__init__()
        if not facts.num_held_out:
            raise PolicyError("darp_estimate needs held-out labels; set DATASET.HELD_OUT to darp, labeled or valid")
        self.condition = condition
        self.total = nn.Buffer(torch.zeros(facts.num_classes, dtype=torch.float64))
        self.accepted = nn.Buffer(torch.zeros((), dtype=torch.int64))

    def refresh(self, held_out: HeldOut | None, predict: Callable[[], Tensor], progress: float) -> dict[str, float]:
        assert held_out is not None  # the constructor saw that there are held-out labels
        found = unlabeled_counts(held_out, predict(), self.condition)
        if found is not None:
            self.total += found.to(self.total.device)
            self.accepted += 1
        return {"darp_accepted": float(self.accepted)}

    def artifact(self) -> dict[str, np.ndarray]:
        return {"unlabeled_counts": (self.total / self.accepted.clamp_min(1)).cpu().numpy()}


def unlabeled_counts(held_out: HeldOut, probs: Tensor, condition: float) -> Tensor | None:
    """(C,) counts q that solve (confusion matrix) q = sum of probs (M, C); None if the solution is not reliable."""
    confusion = torch.zeros(probs.shape[1], probs.shape[1], dtype=torch.float64, device=held_out.probs.device)
    confusion.index_add_(0, held_out.labels, held_out.probs.double())  # row: true class
    confusion = (confusion / confusion.sum(1, keepdim=True)).T
    if not confusion.isfinite().all() or torch.linalg.cond(confusion) >= condition:
        return None
    counts = torch.linalg.solve(confusion, probs.double().sum(0))
    return counts if (counts >= 0).all() else None
