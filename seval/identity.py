"""What a run is: the hash of its settings, and the settings of the run that it depends on."""

import hashlib
import json

from seval.config import delta, settings, with_overrides
from seval.defaults import CORRECTIONS, Node
from seval.policy.seval import published

#: Part of every identity; raised when a default changes in meaning, so that old records no longer match. What concerns
#: some runs only is in seval.defaults.CORRECTIONS.
FORMAT = 1


def prerequisite(cfg: Node) -> Node:
    """The settings of the run that a run of these depends on: the keys of PREREQUISITE changed."""
    name = cfg.METHOD.NAME
    before = f"{name.removesuffix('_load')}_estim" if name.endswith("_load") else f"{name} (prerequisite)"
    named = ["METHOD.NAME", before] if name else []
    return with_overrides(cfg, ["PREREQUISITE", [], *named, *cfg.PREREQUISITE])


def identity(cfg: Node) -> str:
    """10 hexadecimal digits, a hash of the settings that differ from the defaults.

    A published curriculum enters the hash by its content, a prerequisite by its own identity, and so do the corrections
    that concern the run.
    """
    changed = delta(cfg)
    if corrected := [name for name, concerns in CORRECTIONS.items() if concerns(settings(cfg))]:
        changed["CORRECTIONS"] = sorted(corrected)
    if cfg.PREREQUISITE:
        changed["PREREQUISITE"] = identity(prerequisite(cfg))
    if cfg.CURRICULUM:
        arrays = published(cfg.CURRICULUM)
        changed["CURRICULUM"] = hashlib.sha256(b"".join(arrays[name].tobytes() for name in sorted(arrays))).hexdigest()
    text = json.dumps({"format": FORMAT, **changed}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]
