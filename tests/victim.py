"""Train one small run, killed with SIGKILL at chosen moments of its writing; each child is a fresh process image.

`python -m tests.victim FOLDER METHOD MOMENT...`: at MOMENT n the process dies at its n-th write to disk: half of the
bytes are written, nothing is renamed. Prints how many children were killed and how many writes a whole run has.
"""

from __future__ import annotations

import builtins
import os
import signal
import sys
from pathlib import Path

import torch
import torch._dynamo  # every optimizer imports it, which takes seconds: once here, not in each child

from seval import files, record
from seval.run import Run
from tests.settings import small


def main(folder: str, method: str, *moments: str) -> None:
    torch.set_num_threads(1)
    run = Run(small(method, Path(folder)))
    killed = 0
    for moment in (*map(int, moments), None):
        child = os.fork()
        if not child:
            _arm(moment)
            run.execute()
            os._exit(0)
        killed += os.WIFSIGNALED(os.waitpid(child, 0)[1])
    print(killed)


def _arm(moment: int | None) -> None:
    """Count every write of the record module, and die in the middle of the `moment`-th."""
    writes = 0
    real_replace, real_append = record.replace, record.Metrics.append

    def dying(path: Path) -> bool:
        nonlocal writes
        writes += 1
        return writes == moment

    def replace(path: Path, content: bytes, check: object = None) -> None:
        if dying(path):
            with builtins.open(path.with_name(f".{path.name}.{os.getpid()}"), "wb") as file:
                file.write(content[: len(content) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        real_replace(path, content, check)

    def append(self: record.Metrics, line: dict) -> None:
        if dying(self.path):
            with builtins.open(self.path, "a", encoding="utf-8") as file:
                file.write('{"step": 3, "prog')
            os.kill(os.getpid(), signal.SIGKILL)
        real_append(self, line)

    record.replace = files.replace = replace
    record.Metrics.append = append


if __name__ == "__main__":
    main(*sys.argv[1:])
