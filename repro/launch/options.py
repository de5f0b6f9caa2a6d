"""The options of sbatch that a site adds to the launcher's: which it may, how they are written, which ask for a GPU."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from seval.errors import ConfigError
from seval.text import printable, short

#: Options that only the launcher may set: what its ledgers, plans and workers rely on, and what submits nothing.
OWN = (
    "array",
    "chdir",
    "cluster",
    "clusters",
    "cpus-per-gpu",
    "cpus-per-task",
    "dependency",
    "error",
    "export",
    "export-file",
    "get-user-env",
    "gid",
    "help",
    "hold",
    "immediate",
    "job-name",
    "kill-on-invalid-dep",
    "no-requeue",
    "nodes",
    "ntasks",
    "ntasks-per-core",
    "ntasks-per-gpu",
    "ntasks-per-node",
    "ntasks-per-socket",
    "open-mode",
    "output",
    "parsable",
    "quiet",
    "requeue",
    "signal",
    "test-only",
    "time",
    "time-min",
    "uid",
    "usage",
    "version",
    "wait",
    "workdir",
    "wrap",
)
#: The launcher's too, unless memory_gb of the site is 0.
MEMORY = ("mem", "mem-per-cpu", "mem-per-gpu")
_GPUS = (
    "exclusive",  # gives all of a node
    "gpu-bind",
    "gpu-freq",
    "gpus",
    "gpus-per-node",
    "gpus-per-socket",
    "gpus-per-task",
    "gres",
    "mem-per-gpu",
    "tres-per-job",
    "tres-per-node",
    "tres-per-socket",
    "tres-per-task",
)
_NO_GPU = re.compile(r"(none|0|(.*[:=])0|cpu[:=].*|mem[:=].*|energy.*|license.*)?", re.IGNORECASE)


def options(given: Mapping[Any, object], where: str, memory: bool) -> dict[str, str | bool]:
    """The options as sbatch takes them, True for one without a value. Raises `ConfigError` for one of the launcher's.

    `memory`: whether the launcher asks for memory. Like sbatch, this takes a beginning of a name for the name.
    """
    own, found = (*OWN, *MEMORY) if memory else OWN, {}
    for key, value in given.items():
        name = str(key).replace("_", "-")
        if not re.fullmatch("[a-z][a-z0-9-]+", name):
            shown = printable(str(key))[:120]
            raise ConfigError(f"sbatch in {where} must not set {shown}: options have long names, such as mail-type")
        if meant := [each for each in own if each.startswith(name)]:
            whole = "" if name in meant else f" (which may be short for {', '.join(meant)})"
            rest = "" if name not in MEMORY else "; with `memory_gb: 0` for every data set it leaves memory to the site"
            raise ConfigError(f"sbatch in {where} must not set {key}{whole}: the launcher sets {', '.join(own)}{rest}")
        if name in found:
            raise ConfigError(f"sbatch in {where} sets {name} twice")
        if value is not None and value is not False:
            found[name] = value if value is True else _text(value, f"{key} of sbatch in {where}")
    return found


def asks_for_gpu(asked: Mapping[str, str | bool]) -> bool:
    """Whether a job with these options may get a GPU; a generic resource of any name counts as one."""
    return any(
        any(option.startswith(name) for option in _GPUS)
        and (isinstance(value, bool) or not all(_NO_GPU.fullmatch(part.strip()) for part in value.split(",")))
        for name, value in asked.items()
    )


def as_line(text: str, what: str) -> str:
    """The text; a line of it more would be another line of the batch script."""
    if not text.isprintable():
        raise ConfigError(f"{what} must be one line of text, but is {short(text)}")
    return text


def _text(value: object, what: str) -> str:
    if isinstance(value, list) and value and not any(isinstance(each, (list, bool)) for each in value):
        return ",".join(_text(each, what) for each in value)
    if not isinstance(value, (str, int, float)):
        raise ConfigError(f"{what} must be text, a number, true, false, or a list of texts, but is {short(value)}")
    return as_line(str(value), what)
