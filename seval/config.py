"""Merges YAML files and `KEY VALUE` overrides into the defaults, checks them, and says what differs."""

import difflib
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from seval.algorithms import ALGORITHMS
from seval.defaults import CHECKS, DEFAULTS, FOR_ALL, NOT_IDENTITY, Node, node_of, own_node
from seval.errors import ConfigError
from seval.files import read_text
from seval.keys import GROUPS, STANDARD, flatten, some, value_of
from seval.losses import LABELED_LOSSES
from seval.models.network import CLASSIFIERS
from seval.places import ROOT, found
from seval.policy.language import canonical
from seval.text import printable, short, yaml_value

_parsed = lru_cache(512)(yaml_value)  # keyed by text and name: a table reads few files, each hundreds of times
_DEEPEST = 50  # files one below the other, or runs one before the other
_STEP = 2**20  # images in one step


def defaults() -> Node:
    """A fresh, unfrozen copy of the defaults."""
    return DEFAULTS.clone()


def load(files: str | Path | Sequence[str | Path] = (), overrides: Sequence[object] = ()) -> Node:
    """Defaults, then each YAML file over its `_BASE_` files, then `KEY VALUE` overrides; checked and frozen.

    Raises `ConfigError` for an unknown key (naming the nearest valid one), a wrong type or a value out of range.
    """
    cfg = defaults()
    for file in [files] if isinstance(files, str | Path) else files:
        for key, value in read_file(found(file)).items():
            _set(cfg, key, value)
        cfg.METHOD.NAME = cfg.METHOD.NAME or Path(file).stem
    return with_overrides(cfg, overrides)


def with_overrides(cfg: Node, overrides: Sequence[object]) -> Node:
    """A frozen copy of `cfg`, changed by `KEY VALUE` pairs."""
    if len(overrides) % 2:
        words = short(" ".join(map(short, overrides[:50])))
        raise ConfigError(f"overrides are KEY VALUE pairs, but {len(overrides)} words were given: {words}")
    cfg = cfg.clone()
    cfg.defrost()
    for key, value in zip(map(str, overrides[::2]), overrides[1::2], strict=True):
        _set(cfg, key, value_of(key, value, "the command line"))
    _check(cfg)
    _canonicalize(cfg)
    cfg.freeze()
    return cfg


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
    return {key: value for key, value in settings(cfg).items() if value != STANDARD[key]}


def read_file(path: Path, known: dict[str, dict] | None = None, above: tuple[str, ...] = ()) -> dict[str, object]:
    """The keys and values of a YAML file, laid over those of its `_BASE_` files. Raises `ConfigError`.

    `known` are the files that were read before, and `above` those that led to this one.
    """
    known = {} if known is None else known
    place = os.path.realpath(str(path).replace("\0", "?"))
    if place in above:
        raise ConfigError(f"{path} includes itself through _BASE_: {' -> '.join(map(os.path.basename, above[-5:]))}")
    if len(above) > _DEEPEST:
        raise ConfigError(f"{path} is more than {_DEEPEST} _BASE_ files deep")
    if place not in known:
        content = _content(path)
        bases = content.get("_BASE_", [])
        bases = [bases] if isinstance(bases, str) else bases
        if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
            raise ConfigError(f"_BASE_ in {path} must be a list of files, but is {short(bases)}")
        values: dict[str, object] = {}
        for base in bases:
            values |= read_file(path.parent / base, known, (*above, place))
        known[place] = values | _own(content, path)
    return known[place]


def _content(path: Path) -> dict:
    try:
        content = _parsed(read_text(path), str(path))
    except FileNotFoundError:
        raise ConfigError(f"no configuration file {printable(str(path))}; {_near(path)}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"cannot read {path}: it is not text in UTF-8") from None
    except OSError as error:
        raise ConfigError(str(error)) from None
    if not isinstance(content, dict | None):
        raise ConfigError(f"{path} must contain keys and values, but is a {type(content).__name__}")
    return content or {}


def _near(path: Path) -> str:
    """What may have been meant by a file that is missing: one of its folder, else one of that name for a data set."""
    near = {file.stem: file.name for file in sorted(found(path.parent).glob("*.yaml"))}
    if close := difflib.get_close_matches(path.stem[:100], near, n=1):
        return f"did you mean {near[close[0]]}?"
    elsewhere = [
        str(file.relative_to(ROOT)) for file in sorted(ROOT.glob("configs/*/*.yaml")) if file.stem == path.stem
    ]
    return f"did you mean {some(elsewhere)}?" if elsewhere else f"that folder has {some(near.values()) or 'none'}"


def _own(content: Mapping[str, object], path: Path) -> dict[str, object]:
    """The keys that a file itself sets; a key is written once, in its group or with its full name."""
    own: dict[str, object] = {}
    for key, value in _leaves(content):
        if key in own:
            raise ConfigError(f"{key} is given twice in {path}")
        own[key] = value_of(key, value, str(path))
    return own


def _leaves(content: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in content.items():
        if isinstance(value, dict) and value and f"{prefix}{name}." in GROUPS:
            yield from _leaves(value, f"{prefix}{name}.")
        elif prefix or name != "_BASE_":
            yield f"{prefix}{name}", value


def _set(cfg: Node, key: str, value: object) -> None:
    node = cfg
    *path, last = key.split(".")
    for part in path:
        node = node[part]
    node[last] = value


def _canonicalize(cfg: Node) -> None:
    """Give settings that mean the same the same spelling, so that equal runs have equal identities."""
    if cfg.CURRICULUM:
        cfg.PREREQUISITE = []  # the curriculum replaces what a prerequisite would have learned
    if own_node(cfg).get("IMB_FACTOR_UL") == 1:
        cfg.DATASET.UL_SHAPE = STANDARD["DATASET.UL_SHAPE"]  # uniform, whatever the shape
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
    for key, value in flatten(cfg).items():
        for check in (*FOR_ALL, *([CHECKS[key]] if key in CHECKS else [])):
            if not check.holds(value):
                raise ConfigError(f"{key} is {short(value)}, but must be {check.words}")
    _check_chain(cfg.PREREQUISITE)
    if cfg.SOLVER.MAX_ITER % cfg.PERIODS.EVAL:
        raise ConfigError(
            f"SOLVER.MAX_ITER is {cfg.SOLVER.MAX_ITER}, but must be a multiple of PERIODS.EVAL, "
            f"which is {cfg.PERIODS.EVAL}"
        )
    if (images := cfg.SOLVER.IMS_PER_BATCH * (1 + cfg.SOLVER.UNLABELED_BATCH_RATIO)) > _STEP:
        raise ConfigError(
            f"a step has {images} images, at most {_STEP} are possible; lower SOLVER.IMS_PER_BATCH or "
            "SOLVER.UNLABELED_BATCH_RATIO"
        )
    if not any(head.LABELED_LOSS for head in cfg.HEADS.values()):
        raise ConfigError("no head has a LABELED_LOSS, so there is nothing to train; set HEADS.LINEAR.LABELED_LOSS")
    if cfg.DATASET.UL_SHAPE != "long_tail" and not own_node(cfg).get("NUM_UNLABELED_HEAD"):
        raise ConfigError(
            f"DATASET.UL_SHAPE is {cfg.DATASET.UL_SHAPE}, but no unlabeled images of {cfg.DATASET.NAME} are drawn by "
            "class; set it to long_tail, or NUM_UNLABELED_HEAD of the data set, if it has that key, above 0"
        )
    if cfg.MODEL.FROZEN and not cfg.PREREQUISITE:
        raise ConfigError(
            "MODEL.FROZEN is True, but there is no run to take the backbone from; set PREREQUISITE to the keys that "
            "differ in that run, such as [MODEL.FROZEN, False]"
        )
    if cfg.MODEL.PRETRAINED and cfg.MODEL.NAME != "resnet50":
        raise ConfigError(f"MODEL.PRETRAINED is True, but there are weights of resnet50 only, not of {cfg.MODEL.NAME}")


def _check_chain(pairs: list) -> None:
    """Check the keys and values of PREREQUISITE, and of the PREREQUISITE among them."""
    for _ in range(_DEEPEST):
        if len(pairs) % 2 or not all(isinstance(key, str) for key in pairs[::2]):
            raise ConfigError(f"PREREQUISITE is {short(pairs)}, but must be a list of KEY, VALUE pairs")
        given: dict[str, Any] = {
            key: value_of(key, value, "PREREQUISITE") for key, value in zip(pairs[::2], pairs[1::2], strict=True)
        }
        if not (pairs := given.get("PREREQUISITE", [])):
            return
    raise ConfigError(f"PREREQUISITE names a chain of more than {_DEEPEST} runs")
