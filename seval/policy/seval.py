"""SEVAL's two rules and the curriculum they learn (arXiv 2407.05370): class offsets pi, then class thresholds tau."""

from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from seval.errors import PolicyError
from seval.files import read_bytes
from seval.policy.base import Facts, HeldOut, PseudoLabels, Rule, Step
from seval.policy.fits import SOLVERS, fit_offsets, fit_thresholds
from seval.policy.refinement import divide
from seval.policy.thresholds import above
from seval.text import short_line

PI_BOUNDS = (1e-3, 3.0)
TAU_START = 0.95
LARGEST = 1 << 26  # bytes of a published curriculum


class Curriculum:
    """What SEVAL learns about one quantity, pi or tau: row l is its state after evaluation l.

    `fitted` (L, C) are the estimates pi* or tau*. `smoothed` (L, C) is their moving average, computed only here.
    `rare` (L, C) marks the classes whose fit was replaced because they have too few held-out samples.
    """

    def __init__(self, start: np.ndarray, decay: float) -> None:
        self.start, self.decay = np.asarray(start, np.float64), decay
        self.fitted = np.empty((0, len(start)))
        self.smoothed = np.empty((0, len(start)))
        self.rare = np.empty((0, len(start)), bool)

    def append(self, fitted: np.ndarray) -> None:
        """Add the estimate (C,) of an evaluation and update the moving average."""
        previous = self.smoothed[-1] if len(self.smoothed) else self.start
        self.fitted = np.vstack([self.fitted, fitted])
        self.smoothed = np.vstack([self.smoothed, self.decay * previous + (1 - self.decay) * fitted])
        self.rare = np.vstack([self.rare, np.zeros(len(fitted), bool)])

    def overrule(self, rare: np.ndarray) -> None:
        """Give rare classes the smallest value of the last row, the strongest boost; in both arrays, as published."""
        self.rare[-1] = rare
        for rows in (self.fitted, self.smoothed):
            rows[-1, rare] = rows[-1].min()

    def row(self, progress: float) -> int:
        """The row of the evaluation at `progress` in (0, 1]; there is one row per evaluation."""
        return round(progress * len(self.smoothed)) - 1

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        """The rows as named arrays."""
        return {f"{name}_fitted": self.fitted, f"{name}_smoothed": self.smoothed, f"{name}_rare": self.rare}

    @classmethod
    def read(cls, arrays: Mapping[str, np.ndarray], name: str, start: np.ndarray, decay: float) -> Self:
        """The inverse of `arrays`. If only the smoothed rows are known, the estimates are recovered with `decay`."""
        curriculum = cls(start, decay)
        smoothed = np.asarray(arrays[f"{name}_smoothed"], np.float64)
        if smoothed.ndim != 2 or smoothed.shape[1] != len(start) or not len(smoothed):
            needed = f"(evaluations, {len(start)})"
            raise PolicyError(f"the curriculum of {name} has shape {smoothed.shape}, but must have {needed}")
        if not (np.isfinite(smoothed) & (smoothed > 0)).all():
            raise PolicyError(f"the curriculum of {name} has values that are not finite or not above 0")
        curriculum.smoothed = smoothed
        previous = np.vstack([start, smoothed[:-1]])
        curriculum.fitted = arrays.get(f"{name}_fitted", (smoothed - decay * previous) / (1 - decay))
        curriculum.rare = arrays.get(f"{name}_rare", np.zeros(smoothed.shape, bool))
        return curriculum


def published(prefix: str | Path) -> dict[str, np.ndarray]:
    """Read the authors' `<prefix>_estim_pi.npy` and `<prefix>_estim_thres.npy`, whose rows are smoothed."""
    arrays = {}
    for name, suffix in (("pi", "pi"), ("tau", "thres")):
        file = Path(f"{prefix}_estim_{suffix}.npy")
        try:
            content = np.load(BytesIO(read_bytes(file, LARGEST)), allow_pickle=False)
        except OSError as error:
            raise PolicyError(f"no curriculum: {error}") from None
        except Exception as error:  # NumPy raises anything over a damaged header
            raise PolicyError(f"the curriculum {file} is no NumPy file of numbers: {short_line(error)}") from None
        if not isinstance(content, np.ndarray) or content.ndim != 2 or content.dtype.kind not in "fiu":
            raise PolicyError(f"the curriculum {file} must be one table of numbers, with a row for each evaluation")
        arrays[f"{name}_smoothed"] = content.astype(np.float64)
    return arrays


class Learned(Rule):
    """A rule with per-class values, fitted on the held-out split or replayed from the arrays of a prerequisite."""

    name: str  # of the learned quantity

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
                    "evaluations; set SOLVER.MAX_ITER and PERIODS.EVAL so that both numbers are equal"
                )
        elif facts.num_held_out:
            self.curriculum = Curriculum(start, decay)
        else:
            raise PolicyError(
                f"{type(self).__name__} has neither a curriculum to replay nor held-out labels to fit on; "
                "run the estimate phase first (as --with-prerequisites does), or set DATASET.HELD_OUT to valid; "
                "outside a run, give Facts the number num_held_out"
            )
        self.fitted = nn.Buffer(torch.tensor(start, dtype=torch.float32))
        self.smoothed = nn.Buffer(torch.tensor(start, dtype=torch.float32))

    def fit(self, logits: np.ndarray, labels: np.ndarray) -> None:
        """Append the estimate from held-out logits (K, C) and labels (K,) to the curriculum."""
        raise NotImplementedError

    def refresh(self, held_out: HeldOut | None, predict: Callable[[], Tensor], progress: float) -> dict[str, float]:
        if not self.replays:
            if held_out is None:
                raise PolicyError(f"{type(self).__name__} is fitted at each refresh; pass HeldOut(probs, labels) to it")
            logits = held_out.probs.clamp_min(1e-300).log()
            self.fit(logits.cpu().numpy(), held_out.labels.cpu().numpy())
        self.use(self.curriculum.row(progress) if self.replays else -1)
        return {f"{self.name}_{stat}": float(getattr(self.smoothed, stat)()) for stat in ("min", "max")}

    def use(self, row: int) -> None:
        """Use this row of the curriculum from now on."""
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
    """q = softmax(z - log pi), where pi maximizes the class-averaged likelihood of the held-out labels (Eq. 6).

    Pseudo-labels use the moving average of pi; the test-time offset uses the last estimate itself, as published.
    """

    name = "pi"

    def __init__(self, facts: Facts, decay: float = 0.999, groups: int = 0, solver: str = "nelder-mead") -> None:
        super().__init__(facts, np.ones(facts.num_classes), decay, groups, solver)
        moved = [rule for rule in facts.before if not isinstance(rule, SevalRefine) and rule.adjusts]
        if moved:
            raise PolicyError(
                f"{type(moved[0]).__name__} adjusts predictions before {type(self).__name__}, whose test-time offset "
                "would be fitted to other predictions than it is taken off; write SEVAL's rule first"
            )

    def forward(self, pseudo: PseudoLabels, step: Step | None) -> PseudoLabels:
        return pseudo._replace(probs=divide(pseudo.probs, self.smoothed))

    def fit(self, logits: np.ndarray, labels: np.ndarray) -> None:
        self.curriculum.append(fit_offsets(logits, labels, groups=self.groups, bounds=PI_BOUNDS, solver=self.solver))

    def boost(self, rare: np.ndarray) -> None:
        """Replace the offsets of classes that the threshold fit found too rare."""
        self.curriculum.overrule(rare)
        self.use(-1)

    def offsets(self) -> dict[str, Tensor]:
        # estimates recovered from a published curriculum can leave the bounds where a rare class was boosted
        return {"seval": self.fitted.clamp(*PI_BOUNDS).log(), "seval_smoothed": self.smoothed.log()}


class SevalOffset(SevalRefine):
    """SEVAL's test-time offset for other methods: learned like `seval_refine`, not applied to pseudo-labels."""

    def forward(self, pseudo: PseudoLabels, step: Step | None) -> PseudoLabels:
        return pseudo


class SevalThreshold(Learned):
    """Keep pseudo-labels of class c with confidence >= tau_c, where held-out precision reaches `target` (Eq. 7, 26).

    The paper's second version prints the condition with the opposite sign. As in the published code, tau is indexed by
    the refined pseudo-label, and classes with too few held-out samples also get the strongest offset pi.
    """

    name = "tau"

    def __init__(
        self, facts: Facts, target: float = 0.75, decay: float = 0.999, groups: int = 0, solver: str = "nelder-mead"
    ) -> None:
        super().__init__(facts, np.full(facts.num_classes, TAU_START), decay, groups, solver)
        if not 0 <= target <= 1:
            raise PolicyError(f"target is {target:g}, but must be an accuracy between 0 and 1")
        self.target = target
        self.class_counts = facts.class_counts.cpu().numpy()
        self._refiners = facts.previous(SevalRefine)

    def forward(self, pseudo: PseudoLabels, step: Step | None) -> PseudoLabels:
        return pseudo._replace(weight=pseudo.weight * above(pseudo.probs, self.smoothed))

    def fit(self, logits: np.ndarray, labels: np.ndarray) -> None:
        balanced = len(set(np.bincount(labels, minlength=len(self.groups)))) == 1  # then all weights are equal
        counts, groups = None if balanced else self.class_counts, self.groups
        fit = fit_thresholds(logits, labels, target=self.target, class_counts=counts, groups=groups, solver=self.solver)
        self.curriculum.append(fit.tau)
        self.curriculum.rare[-1] = fit.rare
        for rule in self._refiners:
            rule.boost(fit.rare)


def neighbors(num_classes: int, groups: int) -> np.ndarray:
    """(C,) the group of each class: `groups` runs of consecutive classes, the last may be shorter; 0: one per class."""
    if groups < 0 or groups > num_classes:
        raise PolicyError(f"groups is {groups}, but must be between 0 (one per class) and {num_classes}, the classes")
    size = -(-num_classes // (groups or num_classes))
    if groups and (number := -(-num_classes // size)) != groups:
        raise PolicyError(f"groups is {groups}, but groups of {size} of the {num_classes} classes are {number} groups")
    return np.arange(num_classes) // size
