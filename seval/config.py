"""Merges YAML files and `KEY VALUE` overrides into the defaults, checks them, and says what differs."""

import difflib
import math
from ast import literal_eval
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import yaml

from seval.algorithms import ALGORITHMS
from seval.defaults import ALIASES, CHECKS, CHOICES, DEFAULTS, NOT_IDENTITY, Node, node_of
from seval.errors import ConfigError, one_line
from seval.losses import LABELED_LOSSES
from seval.models.network import CLASSIFIERS
from seval.policy.language import canonical

_parsed = lru_cache(512)(yaml.safe_load)  # keyed by text: a table reads few files, each hundreds of times


def defaults() -> Node:
    """A fresh, unfrozen copy of the defaults."""
    return DEFAULTS.clone()


def load(files: str | Path | Sequence[str | Path] = (), overrides: Sequence[object] = ()) -> Node:
    """Defaults, then each YAML file over its `_BASE_` files, then `KEY VALUE` overrides; checked and frozen.

    Raises `ConfigError` for an unknown key (naming the nearest valid one), a wrong type or a value out of range.
    """
    cfg = defaults()
    for file in [files] if isinstance(files, str | Path) else files:
        for key, value, where in _read(Path(file)):
            _set(cfg, key, value, where)
    return with_overrides(cfg, overrides)


def with_overrides(cfg: Node, overrides: Sequence[object]) -> Node:
    """A frozen copy of `cfg`, changed by `KEY VALUE` pairs."""
    if len(overrides) % 2:
        words = f"{len(overrides)} words were given: {' '.join(map(str, overrides))}"
        raise ConfigError(f"overrides are KEY VALUE pairs, but {words}")
    cfg = cfg.clone()
    cfg.defrost()
    for key, value in zip(overrides[::2], overrides[1::2], strict=True):
        _set(cfg, str(key), value, "the command line")
    _check(cfg)
    _canonicalize(cfg)
    cfg.freeze()
    return cfg


def flatten(cfg: dict, prefix: str = "") -> dict[str, object]:
    """`{"SOLVER.BASE_LR": 0.03, ...}`, in the order of seval/defaults.py."""
    flat: dict[str, object] = {}
    for key, value in cfg.items():
        inner = isinstance(value, dict) and value
        flat |= flatten(value, f"{prefix}{key}.") if inner else {f"{prefix}{key}": value}
    return flat


_STANDARD = flatten(DEFAULTS)


def settings(cfg: Node) -> dict[str, object]:
    """Every key that can change the result: all but NOT_IDENTITY and the nodes of other data sets."""
    datasets = [f"DATASET.{key}." for key, value in cfg.DATASET.items() if isinstance(value, Node)]
    foreign = tuple(prefix for prefix in datasets if prefix != f"DATASET.{node_of(cfg.DATASET.NAME)}.")
    return {
        key: value
        for key, value in flatten(cfg).items()
        if not key.startswith(foreign) and not any(f"{key}.".startswith(f"{out}.") for out in NOT_IDENTITY)
    }


def delta(cfg: Node) -> dict[str, object]:
    """The settings that differ from the defaults. A run's identity is computed from them."""
    return {key: value for key, value in settings(cfg).items() if value != _STANDARD[key]}


def _read(file: Path, seen: tuple[Path, ...] = ()) -> Iterator[tuple[str, object, str]]:
    """The (key, value, file) triples of a YAML file, after those of its `_BASE_` files."""
    if file.resolve() in seen:
        raise ConfigError(f"{file} includes itself through _BASE_: {' -> '.join(map(str, seen))}")
    try:
        content = _parsed(file.read_text()) or {}
    except FileNotFoundError:
        near = sorted(p.name for p in file.parent.glob("*.yaml")) if file.parent.is_dir() else []
        hint = f"; that folder has {', '.join(near)}" if near else ""
        raise ConfigError(f"no configuration file {file}{hint}") from None
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"cannot read {file}: {one_line(error)}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{file} must contain keys and values, but is a {type(content).__name__}")
    content = dict(content)  # a copy: the parsed original is cached
    bases = content.pop("_BASE_", [])
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise ConfigError(f"_BASE_ in {file} must be a list of files, but is {bases!r}")
    for base in bases:
        yield from _read(file.parent / base, (*seen, file.resolve()))
    for key, value in flatten(content).items():
        yield key, value, str(file)


def _set(cfg: Node, key: str, value: object, where: str) -> None:
    if key not in _STANDARD:
        if inside := [known for known in _STANDARD if known.startswith(f"{key}.")]:
            raise ConfigError(f"{key} in {where} is a group of keys, not one key; set one of {', '.join(inside)}")
        near = difflib.get_close_matches(key.upper(), _STANDARD, n=1, cutoff=0.0)[0]
        raise ConfigError(f"unknown key {key!r} in {where}; did you mean {near!r}?")
    node = cfg
    *path, last = key.split(".")
    for part in path:
        node = node[part]
    node[last] = _coerce(key, value, _STANDARD[key], where)


def _coerce(key: str, value: object, default: object, where: str) -> object:
    """Convert a value to the type of its default. Text is read as a Python literal; an int is accepted for a float."""
    if isinstance(value, str) and not isinstance(default, str):
        with suppress(ValueError, SyntaxError):
            value = literal_eval(value)
    if isinstance(value, tuple):
        value = list(value)
    if isinstance(value, str) and (key in CHOICES or key == "ALGORITHM.NAME"):
        value = ALIASES.get(value, value)
    if isinstance(default, float) and type(value) is int:
        value = float(value)
    if isinstance(default, str) and isinstance(value, int | float):
        value = str(value)
    if type(value) is not type(default):
        raise ConfigError(
            f"{key} is {value!r} in {where}, but must be of type {type(default).__name__} (its default is {default!r})"
        )
    return value


def _canonicalize(cfg: Node) -> None:
    """Give settings that mean the same the same spelling, so that equal runs have equal identities."""
    if cfg.CURRICULUM:
        cfg.PREREQUISITE = []  # the curriculum replaces what a prerequisite would have learned
    where = "ALGORITHM.NAME"
    try:
        algorithm = ALGORITHMS.read(cfg.ALGORITHM.NAME)
        cfg.ALGORITHM.NAME = str(algorithm)
        for name, head in cfg.HEADS.items():
            where = f"HEADS.{name}"
            head.POLICY = canonical(head.POLICY)
            head.CLASSIFIER = CLASSIFIERS.canonical(head.CLASSIFIER)
            if head.LABELED_LOSS:
                head.LABELED_LOSS = LABELED_LOSSES.canonical(head.LABELED_LOSS)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from None
    heads = [name for name, head in cfg.HEADS.items() if head.LABELED_LOSS]
    needed = ALGORITHMS.known[algorithm.name].num_heads or len(heads)
    if len(heads) != needed:
        raise ConfigError(
            f"{algorithm.name} needs {needed} heads with a LABELED_LOSS, but there are {len(heads)} "
            f"({', '.join(heads)}); set {', '.join(f'HEADS.{name}.LABELED_LOSS' for name in cfg.HEADS)}"
        )


def _check(cfg: Node) -> None:
    """Check each key by itself, then conditions between keys."""
    flat = flatten(cfg)
    for key, value in flat.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{key} is {value}, but must be a finite number")
        if key in CHECKS and not CHECKS[key].holds(value):
            raise ConfigError(f"{key} is {value!r}, but must be {CHECKS[key].words}")
    if cfg.SOLVER.MAX_ITER % cfg.PERIODS.EVAL:
        raise ConfigError(
            f"SOLVER.MAX_ITER is {cfg.SOLVER.MAX_ITER}, but must be a multiple of PERIODS.EVAL, "
            f"which is {cfg.PERIODS.EVAL}"
        )
    if len(cfg.PREREQUISITE) % 2 or not all(key in flat for key in cfg.PREREQUISITE[::2]):
        raise ConfigError(f"PREREQUISITE is {cfg.PREREQUISITE}, but must be a list of KEY, VALUE pairs")
    if not any(head.LABELED_LOSS for head in cfg.HEADS.values()):
        raise ConfigError("no head has a LABELED_LOSS, so there is nothing to train; set HEADS.LINEAR.LABELED_LOSS")
    if cfg.MODEL.FROZEN and not cfg.PREREQUISITE:
        raise ConfigError(
            "MODEL.FROZEN is True, but there is no run to take the backbone from; set PREREQUISITE to the keys that "
            "differ in that run, such as [MODEL.FROZEN, False]"
        )
    if cfg.MODEL.PRETRAINED and cfg.MODEL.NAME != "resnet50":
        raise ConfigError(f"MODEL.PRETRAINED is True, but there are weights of resnet50 only, not of {cfg.MODEL.NAME}")
