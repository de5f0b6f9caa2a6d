"""Others that claim a folder: processes of this host, and files as another host writes them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from seval.files import sealed
from tests.settings import ROOT

#: Another host's, alive as long as its file is young.
FOREIGN = {"host": "other", "boot": "x", "namespace": 1, "uid": os.getuid(), "pid": os.getpid(), "started": "1"}


def start(program: str, *arguments: object) -> subprocess.Popen:
    command = [sys.executable, "-c", f"import sys, time\nfrom pathlib import Path\n{program}", *map(str, arguments)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=ROOT, text=True, **pipes)


def foreign(place: Path, age: float = 0.0, number: int = 1, **more: object) -> Path:
    (path := place / f"claim.{number}").write_text(json.dumps(sealed(FOREIGN | more)), encoding="utf-8")
    os.utime(path, (time.time() - age,) * 2)
    return path


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))
