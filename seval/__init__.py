"""SEVAL: label refinement and threshold adjustment for imbalanced semi-supervised learning (arXiv 2407.05370)."""

from importlib import import_module

__version__ = "0.1.0"

_HOMES = {"load": "seval.config", "Run": "seval.run"}
_HOMES |= dict.fromkeys(("fit_offsets", "fit_thresholds"), "seval.policy.fits")


def __getattr__(name: str) -> object:
    """Import a public name when it is first used: PyTorch takes seconds to import, and not every command needs it."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
