"""Where the files beside the package are (configurations, tables, scripts, `tiny`), and how its commands are called."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
#: Whether pip has copied the package, with those files in it. An editable install uses those of its checkout.
INSTALLED = (_PACKAGE / "share").is_dir()
ROOT = _PACKAGE / "share" if INSTALLED else _PACKAGE.parent
#: What to do where a Python cannot import what this needs.
ENVIRONMENT = (
    f"`{os.path.basename(sys.executable or 'python')} -m pip install` installs what is missing"
    if INSTALLED
    else "write .venv/bin/python, or `. .venv/bin/activate` first; `make demo` creates that environment"
)
_SCRIPT = re.compile(r"(?:python )?\b(?:main|repro/(\w+))\.py\b")


def found(path: str | Path) -> Path:
    """The path; where it is relative and nothing is there, that of this name in `ROOT`, if something is."""
    path = Path(path)
    shipped = ROOT / path
    elsewhere = path.is_absolute() or ".." in path.parts or os.path.lexists(path)
    return path if elsewhere or not os.path.exists(shipped) else shipped


def own_folder(folder: Path) -> Path:
    """Where to write what belongs into a folder of `ROOT`: there, or below the current folder if pip installed it."""
    inside = INSTALLED and folder.is_relative_to(ROOT)
    return folder.relative_to(ROOT) if inside else folder


def started() -> list[str]:
    """The words that started this process as the command `seval`; [] where it was started in another way."""
    this = Path(sys.argv[0])
    if this.stem == "seval" and this.suffix in ("", ".exe"):
        return ["seval" if shutil.which("seval") == os.path.abspath(this) else str(this)]
    if this.name == "__main__.py" and this.parent.name == "seval":
        return [sys.orig_argv[0], "-m", "seval"]
    return []


def called(script: str) -> list[str]:
    """The words that call a script, such as repro/prepare.py, in the way in which this process was started.

    That is by the command `seval`, or by the Python and from the folder of the caller.
    """
    this, name = Path(sys.argv[0]), Path(script).name
    if command := started():
        return [*command, _command(script)]
    if this.name == "main.py":
        return [sys.orig_argv[0], os.path.normpath(this.parent / script)]
    if this.suffix == ".py" and this.parent.resolve().name == "repro":
        beside = script.startswith("repro/")
        return [sys.orig_argv[0], str(this.with_name(name)) if beside else os.path.normpath(this.parent / ".." / name)]
    return plainly(script)


def plainly(script: str) -> list[str]:
    """The words that call a script here, whoever calls it."""
    return ["seval", _command(script)] if INSTALLED else ["python", script]


def spelled(text: str) -> str:
    """A help text that calls the scripts `python main.py` and so on, as this process was started."""
    command = " ".join(started())
    return _SCRIPT.sub(lambda found: f"{command} {found[1] or 'train'}", text) if command else text


def _command(script: str) -> str:
    name = Path(script).stem
    return "train" if name == "main" else name
