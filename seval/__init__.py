"""SEVAL: label refinement and threshold adjustment for imbalanced semi-supervised learning (arXiv 2407.05370).

What the commands do, from Python:

>>> import seval
>>> run = seval.Run(seval.load("configs/tiny/fixmatch.yaml", ["SEED", 1]))
>>> run
<Run fe0b2dfcc0: fixmatch · tiny · seed 1, ...>

`run.execute()` trains it or resumes it, and returns its record; `seval.load_network(run)` is the trained network.

Two functions serve any classifier. `fit_offsets` finds class offsets that correct its logits for class imbalance, here
so that the fifth sample, of the rare class 1, is recognized:

>>> logits, labels = [[3, 0], [3, 0], [2, 0], [2, 0], [1, 0], [0, 1]], [0, 0, 0, 0, 1, 1]
>>> pi = seval.fit_offsets(logits, labels, solver="exact")
>>> (logits - numpy.log(pi)).argmax(1)
array([0, 0, 0, 0, 1, 1])

`fit_thresholds` finds the confidence above which the predictions of each class have a wanted precision. A `Policy`
makes pseudo-labels, also in a training loop of your own; `seval.policy` has what builds policies and what rules need.
docs/library.md has complete examples. Every name is imported when it is first used.
"""

import os
import re
from typing import TYPE_CHECKING

from seval.lazy import lazy

if TYPE_CHECKING:
    from seval import errors, policy
    from seval.config import load
    from seval.inference import load_network
    from seval.policy.base import Policy
    from seval.policy.fits import fit_offsets, fit_thresholds
    from seval.run import Run

__version__ = "0.1.0"
__all__ = ["Policy", "Run", "errors", "fit_offsets", "fit_thresholds", "load", "load_network", "policy"]
__getattr__, __dir__ = lazy(
    __name__,
    {
        "seval": ("errors", "policy"),
        "seval.config": ("load",),
        "seval.inference": ("load_network",),
        "seval.policy.base": ("Policy",),
        "seval.policy.fits": ("fit_offsets", "fit_thresholds"),
        "seval.run": ("Run",),
    },
)

#: What tqdm takes from the environment; of any other value its progress bars would end a training with a traceback.
_BARS = re.compile(r"TQDM_(DISABLE=.*|(MININTERVAL|MAXINTERVAL|DELAY)=[0-9]+(\.[0-9]+)?|(NCOLS|ASCII|LEAVE)=[0-9]+)")
for _name in [name for name in os.environ if name.startswith("TQDM_")]:
    if not _BARS.fullmatch(f"{_name}={os.environ[_name]}"):
        del os.environ[_name]
