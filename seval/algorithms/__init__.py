"""Algorithms by the name a configuration uses."""

from seval.algorithms.consistency import FixMatch, Head, Supervised

__all__ = ["ALGORITHMS", "FixMatch", "Head", "Supervised"]

ALGORITHMS = {"supervised": Supervised, "fixmatch": FixMatch}
