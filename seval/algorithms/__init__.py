"""Algorithms by the name a configuration uses."""

from seval.algorithms.acr import Acr
from seval.algorithms.ccl import Ccl
from seval.algorithms.consistency import FixMatch, MeanTeacher, PseudoLabel, Supervised, Usadtm
from seval.algorithms.cossl import CoSSL
from seval.algorithms.mixmatch import MixMatch, ReMixMatch
from seval.recipes import Kind

ALGORITHMS = Kind(
    "algorithm",
    {
        "supervised": Supervised,
        "pseudo_label": PseudoLabel,
        "mean_teacher": MeanTeacher,
        "mixmatch": MixMatch,
        "remixmatch": ReMixMatch,
        "fixmatch": FixMatch,
        "usadtm": Usadtm,
        "acr": Acr,
        "cossl": CoSSL,
        "ccl": Ccl,
    },
    given=2,
)
