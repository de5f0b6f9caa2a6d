"""Rules whose estimate of a class prior also moves the losses, as a margin on the logits: DebiasPL, SimPro, ADELLO."""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from seval.errors import PolicyError
from seval.losses import soft_cross_entropy
from seval.policy.base import Facts, HeldOut, Margins, PseudoLabels, Rule, Step, Student, tally
from seval.policy.refinement import divide
from seval.policy.thresholds import above


def shares(**values: float) -> None:
    """Raise `PolicyError` unless all of the named values are between 0 and 1."""
    for name, value in values.items():
        if not 0 <= value <= 1:
            raise PolicyError(f"{name} is {value:g}, but must be between 0 and 1")


class Debias(Rule):
    """DebiasPL (Wang et al., CVPR 2022): q = softmax(z - strength log p), with p the running mean prediction.

    After its update, p is also the margin of the unlabeled loss: the logits that learn get strength log p. As in the
    authors' code, p averages the plain predictions of all images, kept or not; it starts uniform. Their further
    contrastive loss (CLD) is left out.
    """

    def __init__(self, facts: Facts, strength: float = 0.4, momentum: float = 0.999) -> None:
        super().__init__()
        shares(momentum=momentum)
        self.strength, self.momentum = strength, momentum
        self.mean = nn.Buffer(torch.full((facts.num_classes,), 1 / facts.num_classes))

    def forward(self, pseudo: PseudoLabels, step: Step | None) -> PseudoLabels:
        probs = divide(pseudo.probs, self.mean**self.strength)
        if step is not None:
            self.mean.lerp_(pseudo.probs.mean(0), 1 - self.momentum)
        return pseudo._replace(probs=probs)

    def margins(self, progress: float) -> Margins:
        return Margins(unlabeled=self.strength * self.mean.log())


class SimPro(Rule):
    """SimPro (Du et al., arXiv 2402.13505): the network learns logits under a uniform prior; the priors are estimated.

    E-step: q = softmax(z + tau log pi_u). M-step, at evaluations: pi_u moves to the class shares of those q whose
    largest entry reaches `threshold`, pi_a to the shares of these and the labels together. All losses get the margin
    tau log pi_a. As in the authors' code, labels stay soft, tau is an exponent of both priors, and pi_u is not
    normalized, which no softmax sees. A rule `threshold` of the same value comes next.
    """

    def __init__(self, facts: Facts, tau: float = 2.0, threshold: float = 0.95, momentum: float = 0.9) -> None:
        super().__init__()
        shares(threshold=threshold, momentum=momentum)
        self.tau, self.threshold, self.momentum = tau, threshold, momentum
        self.unlabeled = nn.Buffer(torch.full((facts.num_classes,), 1 / facts.num_classes))  # pi_u
        self.all = nn.Buffer(facts.prior)  # pi_a
        self.kept = nn.Buffer(torch.zeros(facts.num_classes))  # sums of kept q since the last evaluation
        self.labels = nn.Buffer(torch.zeros(facts.num_classes))  # numbers of labels since then

    def forward(self, pseudo: PseudoLabels, step: Step | None) -> PseudoLabels:
        probs = divide(pseudo.probs, 1 / self._power(self.unlabeled))
        if step is not None:
            if not len(step.anchor_labels):
                raise PolicyError("simpro counts labels; build its steps with all fields of Step, not by Step.of")
            self.kept += (pseudo.weight * above(probs, self.threshold)) @ probs
            self.labels += tally(step.anchor_labels, len(self.labels))
        return pseudo._replace(probs=probs)

    def margins(self, progress: float) -> Margins:
        margin = self._power(self.all).log()
        return Margins(margin, margin)

    def refresh(self, held_out: HeldOut | None, predict: Callable[[], Tensor], progress: float) -> dict[str, float]:
        both = self.kept + self.labels
        self.unlabeled.mul_(self.momentum).add_(self.kept / (self.kept.sum() + 1), alpha=1 - self.momentum)
        if both.any():
            self.all.lerp_(both / both.sum(), 1 - self.momentum)
        self.kept.zero_()
        self.labels.zero_()
        share = self.unlabeled / self.unlabeled.sum()
        return {f"simpro_{stat}": float(getattr(share, stat)()) for stat in ("min", "max")}

    def _power(self, prior: Tensor) -> Tensor:
        return prior**self.tau + 1e-12


class FlexDA(Rule):
    """ADELLO's flexible distribution alignment and distillation (Sanchez Aimar et al., arXiv 2306.04621).

    Q is the running mean of plain predictions q. The target Q^a, normalized, moves from Q to nearly uniform, with
    a = 1 - (1 - floor) progress^power. Margins: log(pi / Q^a) with labels, log(Q / Q^a) without. Images that later
    rules drop learn q^(1/T) at temperature T from the share `distill` of training on, when T = exp(KL(uniform || Q)) is
    fixed. FlexDA alone is distill=1.0. This rule comes first. The authors leave labeled images out of Q.
    """

    def __init__(
        self, facts: Facts, floor: float = 0.1, power: float = 2.0, momentum: float = 0.999, distill: float = 0.19
    ) -> None:
        super().__init__()
        shares(floor=floor, momentum=momentum, distill=distill)
        if facts.before:
            raise PolicyError("flexda comes first in its policy: its statistics are of the plain predictions")
        self.floor, self.power, self.momentum, self.distill = floor, power, momentum, distill
        self.prior = nn.Buffer(facts.prior, persistent=False)
        self.mean = nn.Buffer(torch.full((facts.num_classes,), 1 / facts.num_classes))  # Q
        self.temperature = nn.Buffer(torch.zeros(()))  # 0 until the distillation begins
        self.plain = torch.empty(0)  # (N, C) q of this step

    def forward(self, pseudo: PseudoLabels, step: Step | None) -> PseudoLabels:
        if step is not None:
            if step.progress >= self.distill:  # before Q moves: at the first step of a run, T is 1
                now = (-(self.mean * len(self.mean)).log().mean()).exp()
                self.temperature.copy_(torch.where(self.temperature > 0, self.temperature, now))
            self.plain = pseudo.probs
            self.mean.lerp_(self.plain.mean(0), 1 - self.momentum)
        return pseudo

    def margins(self, progress: float) -> Margins:
        target = self.mean ** (1 - (1 - self.floor) * progress**self.power)
        target = target / target.sum() + 1e-9
        return Margins((self.prior / target).log(), ((self.mean + 1e-9) / target).log())

    @property
    def penalizes(self) -> bool:
        return self.distill < 1

    def penalty(self, pseudo: PseudoLabels, step: Step, student: Student) -> Tensor | None:
        if step.progress < self.distill:
            return None
        margin = cast(Tensor, self.margins(step.progress).unlabeled)
        target = self.plain ** (1 / self.temperature)
        distances = soft_cross_entropy((student.logits + margin) / self.temperature, target / target.sum(1, True))
        return ((1 - pseudo.weight.clamp(max=1)) * distances).mean()
