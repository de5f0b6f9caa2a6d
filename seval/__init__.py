"""SEVAL: label refinement and threshold adjustment for imbalanced semi-supervised learning (arXiv 2407.05370)."""

__version__ = "0.1.0"
