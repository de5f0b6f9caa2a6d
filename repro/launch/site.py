"""Facts about a site, from slurm/site.yaml or slurm/cluster.yaml: what to ask SLURM for, and how a worker starts."""

from __future__ import annotations

import hashlib
import os
import shlex
import subprocess
import sys
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from repro.launch.environment import slurm_environment
from repro.launch.options import as_line, asks_for_gpu, options
from repro.tables.yaml_file import as_mapping, check_known
from seval.defaults import SETS
from seval.errors import ConfigError
from seval.files import read_json, read_yaml, write_json
from seval.places import ROOT, found
from seval.text import json_value, printable, short
from seval.versions import versions

DATA_SETS = ("default", *SETS, "own")


@dataclass(frozen=True)
class Resources:
    """What a run asks for; array elements with equal resources form a class.

    Memory of 0 is not asked for, and steps a second of 0 are computed.
    """

    minutes: int = 1440
    memory_gb: float = 16.0
    cpus: int = 4
    runs_per_gpu: int = 1
    steps_per_second: float = 0.0


@dataclass(frozen=True)
class Site:
    """The keys of slurm/cluster.yaml, which explains each."""

    partition: str = ""
    account: str = ""
    qos: str = ""
    gres: str = "gpu:1"
    card: str = ""
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
        """The site of a YAML file; `ConfigError` says what is wrong and what would be valid."""
        site = cls(**_checked(as_mapping(_content(path), str(path)), cls, str(path)))
        if not all(isinstance(line, str) for line in site.modules):
            raise ConfigError(f"modules in {path} must be lines of text, but are {short(site.modules)}")
        for name in ("partition", "account", "qos", "gres", "constraint"):
            as_line(getattr(site, name), f"{name} in {path}")
        check_known(site.resources, DATA_SETS, f"data set in resources of {path}")
        where = f"in {path}"
        resources = {
            name: _checked(as_mapping(level, f"resources of {name} {where}"), Resources, f"resources of {name} {where}")
            for name, level in site.resources.items()
        }
        site = replace(site, resources=resources)
        for name in resources:
            _positive(site.of(name), f"resources of {name} in {path}")
        options(site.sbatch, str(path), site.asks_for_memory)
        shortest = min(needed.minutes for needed in site._all())
        if 60 * shortest <= site.signal_seconds:
            raise ConfigError(
                f"signal_seconds in {path} is {site.signal_seconds}, which a time limit of {shortest} "
                "minutes does not leave"
            )
        _positive(site, str(path), ("array_parallelism", "signal_seconds", "tries", "patience"))
        return site

    def of(self, data_set: str) -> Resources:
        """What a run on that data set needs; all sets that are not built in are `own`."""
        name = data_set if data_set in DATA_SETS else "own"
        return Resources(**self.resources.get("default", {}) | self.resources.get(name, {}))

    def _all(self) -> list[Resources]:
        return [self.of(name) for name in {"default", *self.resources}]

    @property
    def asks_for_memory(self) -> bool:
        """Whether any run does; else memory is left to the site, and to its `sbatch`."""
        return any(needed.memory_gb for needed in self._all())

    def options(self) -> dict[str, str | bool]:
        """What the site adds to the launcher's options of sbatch: its own keys and its `sbatch`."""
        keys = {name: getattr(self, name) for name in ("partition", "account", "qos", "gres", "constraint")}
        more = options(self.sbatch, "the site", self.asks_for_memory)
        return {name: value for name, value in keys.items() if value} | more

    @property
    def gpu(self) -> bool:
        """Whether an array element may get a GPU."""
        return asks_for_gpu(self.options())

    @property
    def python(self) -> str:
        """The command that starts a worker's Python, as the shell reads it."""
        return self.slurm_python or shlex.quote(sys.executable)

    def setup(self) -> list[str]:
        """Bash for a Python that finds this code; an image has its own."""
        path = [] if self.image else [f"export PYTHONPATH={shlex.quote(str(ROOT))}${{PYTHONPATH:+:$PYTHONPATH}}"]
        return path + self.modules

    def worker_versions(self) -> dict[str, str | None]:
        """The versions of the worker's packages: its command is tried here, before anything is in the queue."""
        if not self.slurm_python:
            return versions()
        if not self.probe:
            return {}
        script = "\n".join([*self.setup(), f"{self.python} -m seval.versions"])
        try:
            done = subprocess.run(
                ["bash", "-c", script],
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=300,
                env=slurm_environment(),
            )
            return dict(json_value(done.stdout.strip().splitlines()[-1]))
        except (subprocess.TimeoutExpired, ValueError, TypeError, IndexError) as error:
            said = done.stderr.strip().splitlines()[-1:] if not isinstance(error, subprocess.TimeoutExpired) else []
            raise ConfigError(
                f"`{self.python} -m seval.versions` does not run here ({printable(''.join(said)) or error}); "
                "fix slurm_python of the site, or set `probe: false` if it runs on nodes only"
            ) from None

    def image_digest(self, cache: Path) -> str:
        """What identifies the image in a record: the SHA-256 of its file, kept in `cache`, or the given text."""
        path = Path(os.path.expanduser(os.path.expandvars(self.image)))
        if not self.image or not path.is_file():
            return self.image
        about = [str(path.resolve()), path.stat().st_size, path.stat().st_mtime]
        try:
            known = read_json(cache, {"about": list, "digest": str})
        except (OSError, ValueError):
            known = {}
        if known.get("about") != about:
            with path.open("rb") as file:
                known = {"about": about, "digest": "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()}
            cache.parent.mkdir(parents=True, exist_ok=True)
            write_json(cache, known)
        return known["digest"]


def find_site(path: str | None = None) -> Path:
    """The given file, else that of SEVAL_SITE, else slurm/site.yaml, here or in `ROOT`, else slurm/cluster.yaml."""
    if given := path or os.environ.get("SEVAL_SITE"):
        return found(given)
    files = (Path("slurm/site.yaml"), ROOT / "slurm" / "site.yaml")
    return next((file for file in files if file.exists()), ROOT / "slurm" / "cluster.yaml")


def _content(path: Path) -> object:
    try:
        return read_yaml(path)
    except OSError as error:
        raise ConfigError(str(error)) from None


def _checked(content: dict, kind: type, where: str) -> dict:
    """The given keys with values, each of the type its default has; an empty value is the default."""
    standard = {each.name: getattr(kind(), each.name) for each in fields(kind)}
    check_known(content, standard, f"key in {where}")
    # an empty value is the default, but for an empty gres, which is no GPU
    given = {
        key: "" if value is None else value for key, value in content.items() if value is not None or key == "gres"
    }
    for key, value in given.items():
        wanted = type(standard[key])
        if not isinstance(value, (int, float) if wanted is float else wanted) or type(value) is bool is not wanted:
            raise ConfigError(
                f"{key} in {where} must be of type {wanted.__name__}, such as {standard[key]!r}, but is {short(value)}"
            )
    return given


def _positive(value: Site | Resources, where: str, names: tuple[str, ...] = ()) -> None:
    for name in names or [each.name for each in fields(value)]:
        given = getattr(value, name)
        if not 0 < given < 1e9 and not (name in ("memory_gb", "steps_per_second") and given == 0):
            raise ConfigError(f"{name} in {where} must be more than 0 and less than 1e9, but is {given}")
