"""What produced a result: commit, image, package versions, device. Never claims what it does not know."""

import hashlib
import inspect
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import torch

from seval.versions import packages


def provenance(device: torch.device, root: Path) -> dict[str, object]:
    """Of the code in `root` on `device`, now. `commit` and `dirty` are None where git does not say."""
    cuda = device.type == "cuda"
    commit, dirty = _checkout(root) if (root / ".git").exists() else (os.environ.get("SEVAL_REVISION") or None, None)
    return {
        "commit": commit,
        "dirty": dirty,
        "image": os.environ.get("SEVAL_IMAGE"),
        "python": platform.python_version(),
        "packages": packages(),
        "device": torch.cuda.get_device_name(device) if cuda else f"cpu ({platform.machine()})",
        "threads": torch.get_num_threads(),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "host": platform.node(),
        "job": os.environ.get("SLURM_JOB_ID"),
    }


def made(done: dict) -> str:
    """`on 2026-11-26 04:47 by commit 5d9b770`, as far as a record says."""
    origin = done.get("provenance", {})
    when, commit = origin.get("finished"), origin.get("commit")
    words = [f"on {when[:16].replace('T', ' ')}"] if when else []
    words += [f"by commit {commit[:7]}{' with changes' if origin.get('dirty') else ''}"] if commit else []
    return " ".join(words)


def code(rules: Iterable[type] = ()) -> str:
    """SHA-256 over the sources of seval, and of the modules of those `rules` that other packages define."""
    own = Path(__file__).parent
    digest = hashlib.sha256(_sources(own, max(path.stat().st_mtime_ns for path in _modules(own))))
    for rule in sorted(rules, key=lambda rule: rule.__qualname__):
        if rule.__module__.partition(".")[0] != "seval":
            digest.update(f"{rule.__module__}.{rule.__qualname__}".encode())
            digest.update(_source(rule))
    return digest.hexdigest()


def _source(rule: type) -> bytes:
    """The file of its module or, for a rule typed into a notebook, which has none, what its methods compile to."""
    try:
        path = Path(inspect.getfile(rule))
    except (OSError, TypeError):
        methods = [value.__code__ for value in vars(rule).values() if inspect.isfunction(value)]
        plain = (bool, int, float, str, bytes, tuple, type(None))  # the text of others changes from process to process
        kept = [[value for value in method.co_consts if isinstance(value, plain)] for method in methods]
        said = [(m.co_name, m.co_code.hex(), m.co_names, k) for m, k in zip(methods, kept, strict=True)]
        return repr(said).encode()
    return path.read_bytes()


def _modules(folder: Path) -> list[Path]:
    """Those of the package; the scripts that pip installs below it are no part of it, so that both have one hash."""
    return [path for path in folder.rglob("*.py") if path.relative_to(folder).parts[0] != "share"]


@lru_cache(1)
def _sources(folder: Path, newest: int) -> bytes:
    digest = hashlib.sha256()
    for path in sorted(_modules(folder)):
        digest.update(f"{path.relative_to(folder)}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.digest()


def _checkout(root: Path) -> tuple[str | None, bool | None]:
    """(commit, whether the code differs from it); new files count in seval/, from where they are imported."""
    pages = ":(exclude,glob)**/*.md"  # commands regenerate some of them; they cannot change a number
    try:
        commit = _git(root, "rev-parse", "HEAD")
        changed = _git(root, "status", "--porcelain", "--untracked-files=all", "--", ".", pages)
    except (OSError, subprocess.SubprocessError, UnicodeError) as error:
        said = getattr(error, "stderr", None) or error
        words = " ".join(str(said).split())
        print(f"git does not say which commit this is ({words}); the record has none", file=sys.stderr)
        return None, None
    return commit, any(not line.startswith("?? ") or line.startswith("?? seval/") for line in changed.splitlines())


def _git(root: Path, *command: str) -> str:
    """What git says; its own settings are asked, not the environment's. Another user's checkout is read, too."""
    own = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    trusting = ["git", "-c", "safe.directory=*", "-c", "core.quotePath=false", "-C", str(root), *command]
    done = subprocess.run(trusting, capture_output=True, text=True, timeout=30, check=True, env=own, encoding="utf-8")
    return done.stdout.strip()
