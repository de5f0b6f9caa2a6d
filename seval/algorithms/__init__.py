"""Algorithms by the name a configuration uses."""

from seval.algorithms.acr import Acr
from seval.algorithms.consistency import FixMatch, Head, MeanTeacher, PseudoLabel, Supervised, Usadtm
from seval.algorithms.mixmatch import MixMatch, ReMixMatch

__all__ = ["ALGORITHMS", "Head"]

ALGORITHMS: dict[str, type[Supervised]] = {
    "supervised": Supervised,
    "pseudo_label": PseudoLabel,
    "mean_teacher": MeanTeacher,
    "mixmatch": MixMatch,
    "remixmatch": ReMixMatch,
    "fixmatch": FixMatch,
    "usadtm": Usadtm,
    "acr": Acr,
}
