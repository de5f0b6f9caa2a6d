"""The scripts as their users call them: in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.settings import ROOT


def call(script: str, *words: str, stdout: str | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Its exit code and its texts; bytes that are not UTF-8 are escaped."""
    command = [sys.executable, f"repro/{script}.py", *words]
    more = {"env": os.environ | environment, "cwd": ROOT, "encoding": "utf-8", "errors": "backslashreplace"}
    if stdout is None:
        return subprocess.run(command, capture_output=True, **more)
    with open(stdout, "wb") as file:
        return subprocess.run(command, stdout=file, stderr=subprocess.PIPE, **more)
