"""SEVAL's two rules and the curriculum they learn (arXiv 2407.05370): class offsets pi, then class thresholds tau."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from seval.errors import PolicyError
from seval.policy.base import Facts, HeldOut, PseudoLabels, Rule, Step
from seval.policy.fits import SOLVERS, ThresholdFit, fit_offsets, fit_thresholds
from seval.policy.refinement import divide
from seval.policy.thresholds import above

__all__ = ["Curriculum", "SevalOffset", "SevalRefine", "SevalThreshold", "ThresholdFit"]
__all__ += ["fit_offsets", "fit_thresholds", "published"]

PI_BOUNDS = (1e-3, 3.0)
TAU_START = 0.95


class Curriculum:
    """What SEVAL learns of one quantity: row l is its state after evaluation l.

    `fitted` (L, C) are the estimates pi* or tau*, `smoothed` (L, C) their moving average, the only place where it is
    taken, and `rare` (L, C) the classes whose fit was overruled for want of held-out samples.
    """

    def __init__(self, start: np.ndarray, decay: float) -> None:
        self.start, self.decay = np.asarray(start, np.float64), decay
        self.fitted = np.empty((0, len(start)))
        self.smoothed = np.empty((0, len(start)))
        self.rare = np.empty((0, len(start)), bool)

    def append(self, fitted: np.ndarray) -> None:
        """Add an evaluation's estimate (C,) and smooth it in."""
        previous = self.smoothed[-1] if len(self.smoothed) else self.start
        self.fitted = np.vstack([self.fitted, fitted])
        self.smoothed = np.vstack([self.smoothed, self.decay * previous + (1 - self.decay) * fitted])
        self.rare = np.vstack([self.rare, np.zeros(len(fitted), bool)])

    def overrule(self, rare: np.ndarray) -> None:
        """Give rare classes the smallest value of the last row: the strongest boost. As published, in both rows."""
        self.rare[-1] = rare
        for rows in (self.fitted, self.smoothed):
            rows[-1, rare] = rows[-1].min()

    def row(self, progress: float) -> int:
        """The row of the evaluation at `progress` in (0, 1], one row being one evaluation."""
        return round(progress * len(self.smoothed)) - 1

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        """The rows as named arrays."""
        return {f"{name}_fitted": self.fitted, f"{name}_smoothed": self.smoothed, f"{name}_rare": self.rare}

    @classmethod
    def read(cls, arrays: Mapping[str, np.ndarray], name: str, start: np.ndarray, decay: float) -> Curriculum:
        """The inverse of `arrays`. Where only smoothed rows are known, the estimates are recovered with `decay`."""
        curriculum = cls(start, decay)
        smoothed = np.asarray(arrays[f"{name}_smoothed"], np.float64)
        if smoothed.ndim != 2 or smoothed.shape[1] != len(start) or not len(smoothed):
            raise PolicyError(
                f"the curriculum of {name} has shape {smoothed.shape}, but (evaluations, {len(start)}) is expected"
            )
        if not (np.isfinite(smoothed) & (smoothed > 0)).all():
            raise PolicyError(f"the curriculum of {name} has values that are not finite and above 0")
        curriculum.smoothed = smoothed
        previous = np.vstack([start, smoothed[:-1]])
        curriculum.fitted = arrays.get(f"{name}_fitted", (smoothed - decay * previous) / (1 - decay))
        curriculum.rare = arrays.get(f"{name}_rare", np.zeros(smoothed.shape, bool))
        return curriculum


def published(prefix: str | Path) -> dict[str, np.ndarray]:
    """The authors' `<prefix>_estim_pi.npy` and `<prefix>_estim_thres.npy` as an artifact; their rows are smoothed."""
    arrays = {}
    for name, suffix in (("pi", "pi"), ("tau", "thres")):
        file = Path(f"{prefix}_estim_{suffix}.npy")
        try:
            arrays[f"{name}_smoothed"] = np.load(file, allow_pickle=False).astype(np.float64)
        except (OSError, ValueError, EOFError) as error:
            raise PolicyError(f"cannot read the curriculum {file}: {' '.join(str(error).split())}") from None
    return arrays


class Learned(Rule):
    """A rule whose per-class values are fitted on the held-out split, or replayed from a prerequisite's artifact."""

    name: str  # of the quantity

    def __init__(self, facts: Facts, start: np.ndarray, decay: float, groups: int, solver: str) -> None:
        super().__init__()
        if solver not in SOLVERS:
            raise PolicyError(f"solver is {solver!r}, but must be one of {', '.join(SOLVERS)}")
        self.solver = solver
        if not 0 <= decay < 1:
            raise PolicyError(f"decay is {decay:g}, but must be at least 0 and below 1")
        self.groups = neighbors(facts.num_classes, groups)
        self.replays = f"{self.name}_smoothed" in facts.artifacts
        if self.replays:
            self.curriculum = Curriculum.read(facts.artifacts, self.name, start, decay)
            rows = len(self.curriculum.smoothed)
            if facts.num_evaluations not in (0, rows):
                raise PolicyError(
                    f"the curriculum of {self.name} has {rows} rows, but this run has {facts.num_evaluations} "
                    "evaluations; SOLVER.MAX_ITER / PERIODS.EVAL must be the rows"
                )
        elif facts.num_held_out:
            self.curriculum = Curriculum(start, decay)
        else:
            raise PolicyError(
                f"{type(self).__name__} has neither a curriculum to replay nor held-out labels to fit on; "
                "run the estimate phase first (--with-prerequisites does), or set DATASET.HELD_OUT to valid"
            )
        self.fitted = nn.Buffer(torch.tensor(start, dtype=torch.float32))
        self.smoothed = nn.Buffer(torch.tensor(start, dtype=torch.float32))

    def fit(self, held_out: HeldOut) -> None:
        """Append this evaluation's estimate to the curriculum."""
        raise NotImplementedError

    def refresh(self, held_out: HeldOut | None, predict: Callable[[], Tensor], progress: float) -> dict[str, float]:
        if not self.replays:
            assert held_out is not None  # the constructor saw that there are held-out labels
            self.fit(held_out)
        self.use(self.curriculum.row(progress) if self.replays else -1)
        return {f"{self.name}_{stat}": float(getattr(self.smoothed, stat)()) for stat in ("min", "max")}

    def use(self, row: int) -> None:
        """Act by this row of the curriculum from now on."""
        self.fitted.copy_(torch.from_numpy(self.curriculum.fitted[row]))
        self.smoothed.copy_(torch.from_numpy(self.curriculum.smoothed[row]))

    def artifact(self) -> dict[str, np.ndarray]:
        return self.curriculum.arrays(self.name)

    def get_extra_state(self) -> dict[str, Tensor]:
        return {key: torch.from_numpy(rows.copy()) for key, rows in self.curriculum.arrays(self.name).items()}

    def set_extra_state(self, state: dict[str, Tensor]) -> None:
        for key in ("fitted", "smoothed", "rare"):
            setattr(self.curriculum, key, state[f"{self.name}_{key}"].numpy().copy())


class SevalRefine(Learned):
    """q = softmax(z - log pi), with pi maximizing the class-averaged likelihood of the held-out labels (Eq. 6).

    The pseudo-labels use the moving average of pi, the test-time offset the last estimate itself, as published.
    """

    name = "pi"

    def __init__(self, facts: Facts, decay: float = 0.999, groups: int = 0, solver: str = "nelder-mead") -> None:
        super().__init__(facts, np.ones(facts.num_classes), decay, groups, solver)

    def forward(self, pseudo: PseudoLabels, step: Step | None) -> PseudoLabels:
        return pseudo._replace(probs=divide(pseudo.probs, self.smoothed))

    def fit(self, held_out: HeldOut) -> None:
        logits = held_out.probs.clamp_min(1e-300).log()
        self.curriculum.append(
            fit_offsets(
                logits.cpu().numpy(),
                held_out.labels.cpu().numpy(),
                groups=self.groups,
                bounds=PI_BOUNDS,
                solver=self.solver,
            )
        )

    def boost(self, rare: np.ndarray) -> None:
        """Overrule the offsets of classes that the threshold fit found too rare."""
        self.curriculum.overrule(rare)
        self.use(-1)

    def offsets(self) -> dict[str, Tensor]:
        # recovered estimates of a published curriculum may leave the box where the rare rule jumped
        return {"seval": self.fitted.clamp(*PI_BOUNDS).log(), "seval_smoothed": self.smoothed.log()}


class SevalOffset(SevalRefine):
    """SEVAL's learned test-time offset for any other method: fitted or replayed as `seval_refine`, but not applied."""

    def forward(self, pseudo: PseudoLabels, step: Step | None) -> PseudoLabels:
        return pseudo


class SevalThreshold(Learned):
    """Keep class c where its confidence reaches tau_c, at which held-out precision is `target` (Eq. 7, 26).

    The paper's second version prints the condition with the opposite sign. tau is indexed by the refined pseudo-label,
    as in the published code, and classes without reliable held-out samples take the strongest offset pi as well.
    """

    name = "tau"

    def __init__(
        self, facts: Facts, target: float = 0.75, decay: float = 0.999, groups: int = 0, solver: str = "nelder-mead"
    ) -> None:
        super().__init__(facts, np.full(facts.num_classes, TAU_START), decay, groups, solver)
        if not 0 <= target <= 1:
            raise PolicyError(f"target is {target:g}, but is an accuracy, between 0 and 1")
        self.target = target
        self.class_counts = facts.class_counts.cpu().numpy()
        self._refiners = facts.previous(SevalRefine)

    def forward(self, pseudo: PseudoLabels, step: Step | None) -> PseudoLabels:
        return pseudo._replace(weight=pseudo.weight * above(pseudo.probs, self.smoothed))

    def fit(self, held_out: HeldOut) -> None:
        labels = held_out.labels.cpu().numpy()
        balanced = len(set(np.bincount(labels, minlength=len(self.groups)))) == 1  # then no sample is worth more
        logits = held_out.probs.clamp_min(1e-300).log().cpu().numpy()
        fit = fit_thresholds(
            logits,
            labels,
            target=self.target,
            class_counts=None if balanced else self.class_counts,
            groups=self.groups,
            solver=self.solver,
        )
        self.curriculum.append(fit.tau)
        self.curriculum.rare[-1] = fit.rare
        for rule in self._refiners:
            rule.boost(fit.rare)


def neighbors(num_classes: int, groups: int) -> np.ndarray:
    """(C,) group of each class: `groups` runs of neighbors in frequency, the last one shorter; 0 is one per class."""
    if groups < 0 or groups > num_classes:
        raise PolicyError(f"groups is {groups}, but must lie between 0 (one per class) and the {num_classes} classes")
    size = -(-num_classes // (groups or num_classes))
    if groups and (number := -(-num_classes // size)) != groups:
        raise PolicyError(f"groups is {groups}, but runs of {size} of the {num_classes} classes make {number} groups")
    return np.arange(num_classes) // size
