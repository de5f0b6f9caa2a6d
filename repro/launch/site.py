"""Facts about a site, read from slurm/cluster.yaml: what to ask SLURM for, and how a worker is started there."""

from __future__ import annotations

import difflib
import math
import os
import shlex
import sys
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import yaml

from repro.tables.table import ROOT
from seval.defaults import CHOICES
from seval.errors import ConfigError

#: Options of sbatch that the launcher needs for itself.
OWN = (
    "array",
    "chdir",
    "cpus-per-task",
    "dependency",
    "error",
    "job-name",
    "kill-on-invalid-dep",
    "mem",
    "mem-per-cpu",
    "mem-per-gpu",
    "no-requeue",
    "nodes",
    "ntasks",
    "ntasks-per-node",
    "open-mode",
    "output",
    "requeue",
    "signal",
    "time",
    "wrap",
)
DATA_SETS = ("default", *CHOICES["DATASET.NAME"])


@dataclass(frozen=True)
class Resources:
    """What one run asks for; array elements of the same are one class."""

    minutes: int = 1440
    memory_gb: float = 16.0
    cpus: int = 4
    runs_per_gpu: int = 1
    steps_per_second: float = 10.0


@dataclass(frozen=True)
class Site:
    """The keys of slurm/cluster.yaml, which says what each means."""

    partition: str = ""
    account: str = ""
    qos: str = ""
    gres: str = "gpu:1"
    constraint: str = ""
    sbatch: dict[str, object] = field(default_factory=dict)
    slurm_python: str = ""
    image: str = ""
    modules: list[str] = field(default_factory=list)
    scratch: str = ""
    probe: bool = True
    array_parallelism: int = 64
    array_size: int = 0
    requeue: bool = True
    signal_seconds: int = 120
    tries: int = 3
    patience: int = 30
    resources: dict[str, dict] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Site:
        """The site of a YAML file; `ConfigError` names what is wrong and what would be right."""
        try:
            content = yaml.safe_load(path.read_text())
        except (yaml.YAMLError, OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot read {path}: {' '.join(str(error).split())}") from None
        site = cls(**_checked(content, cls, str(path)))
        if not all(isinstance(line, str) for line in site.modules):
            raise ConfigError(f"modules in {path} must be lines of text, but are {site.modules!r}")
        if own := [str(key) for key in site.sbatch if str(key).replace("_", "-") in OWN or len(str(key)) == 1]:
            raise ConfigError(
                f"sbatch in {path} must not set {', '.join(own)}: the launcher sets {', '.join(OWN)}, "
                "and options have their long names"
            )
        resources = {
            name: _checked(level, Resources, f"resources of {name} in {path}") for name, level in site.resources.items()
        }
        _known(resources, DATA_SETS, f"data set in resources of {path}")
        site = replace(site, resources=resources)
        for name in resources:
            _positive(site.of(name), f"resources of {name} in {path}")
        short = min([site.of(name).minutes for name in resources] + [site.of("default").minutes])
        if 60 * short <= site.signal_seconds:
            raise ConfigError(
                f"signal_seconds in {path} is {site.signal_seconds}, which a time limit of {short} "
                "minutes does not leave"
            )
        _positive(site, str(path), ("array_parallelism", "signal_seconds", "tries", "patience"))
        return site

    def of(self, data_set: str) -> Resources:
        """What a run on that data set needs."""
        return Resources(**self.resources.get("default", {}) | self.resources.get(data_set, {}))

    @property
    def python(self) -> str:
        """The command that starts a worker's Python, as the shell reads it."""
        return self.slurm_python or shlex.quote(sys.executable)


def find(path: str | None) -> Path:
    """The file of the site at hand."""
    return Path(path or os.environ.get("SEVAL_SITE") or ROOT / "slurm" / "cluster.yaml")


def _checked(content: object, kind: type, where: str) -> dict:
    """The given keys with values, each of the type its default has; an empty one is the default."""
    if not isinstance(content, dict | None):
        raise ConfigError(f"{where} must be a mapping, but is {content!r}")
    standard = {each.name: getattr(kind(), each.name) for each in fields(kind)}
    _known(content or {}, standard, f"key in {where}")
    # what is left empty has its default, but for an empty gres, which is no GPU
    given = {
        key: "" if value is None else value
        for key, value in (content or {}).items()
        if value is not None or key == "gres"
    }
    for key, value in given.items():
        wanted = type(standard[key])
        if not isinstance(value, (int, float) if wanted is float else wanted) or type(value) is bool is not wanted:
            raise ConfigError(
                f"{key} in {where} must be of type {wanted.__name__}, such as {standard[key]!r}, but is {value!r}"
            )
    return given


def _known(given: dict, valid: object, what: str) -> None:
    valid = list(valid)
    for name in given:
        if name not in valid:
            near = difflib.get_close_matches(str(name), valid, n=1, cutoff=0.0)[0]
            raise ConfigError(f"unknown {what}: {name!r}; did you mean {near!r}? Valid: {', '.join(valid)}")


def _positive(value: object, where: str, names: tuple[str, ...] = ()) -> None:
    for name in names or [each.name for each in fields(value)]:
        if not 0 < getattr(value, name) < math.inf:
            raise ConfigError(f"{name} in {where} must be more than 0, but is {getattr(value, name)}")
