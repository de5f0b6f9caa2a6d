"""SEVAL: label refinement and threshold adjustment for imbalanced semi-supervised learning (arXiv 2407.05370)."""

import os
import re
from importlib import import_module

__version__ = "0.1.0"

_HOMES = {"load": "seval.config", "Run": "seval.run"}
_HOMES |= dict.fromkeys(("fit_offsets", "fit_thresholds"), "seval.policy.fits")


#: What tqdm takes from the environment; of any other value its progress bars would end a training with a traceback.
_BARS = re.compile(r"TQDM_(DISABLE=.*|(MININTERVAL|MAXINTERVAL|DELAY)=[0-9]+(\.[0-9]+)?|(NCOLS|ASCII|LEAVE)=[0-9]+)")
for _name in [name for name in os.environ if name.startswith("TQDM_")]:
    if not _BARS.fullmatch(f"{_name}={os.environ[_name]}"):
        del os.environ[_name]


def __getattr__(name: str) -> object:
    """Import a public name when it is first used: PyTorch takes seconds to import, and not every command needs it."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
