"""Why the last attempt at a run failed: a file in its folder, until the run is started again."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from seval import files
from seval.text import printable

#: What a worker leaves as the kind of its failure.
_LEFT = ("oom", "crashed", "canceled", "resumable")


def fail(folder: Path, kind: str, error: str, trace: str, submission: str = "") -> None:
    """Keep in a run's folder why it failed, until it is started again."""
    with suppress(OSError):  # a full or read-only disk may be the very reason
        folder.mkdir(parents=True, exist_ok=True)
        files.write_json(
            folder / "failure.json", {"kind": kind, "error": error, "traceback": trace, "submission": submission}
        )


def failure(folder: Path) -> dict | None:
    """Why the last attempt failed, if it left a reason."""
    with suppress(OSError, ValueError):
        found = files.read_json(folder / "failure.json", {"kind": str, "error": str})
        if found["kind"] in _LEFT:
            return found | {"error": printable(found["error"])}
    return None
