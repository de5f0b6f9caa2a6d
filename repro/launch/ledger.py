"""What was submitted to SLURM.

Every array that is submitted has a ledger, `OUTPUT_DIR/slurm/<name>.json`, written *before* sbatch is called. The
name is the array's job name, so what is in the queue is found even where sbatch's answer was lost, and by everyone who
shares the folder.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from seval.errors import ConfigError
from seval.files import write_json


@dataclass
class Submission:
    """One array: which runs its elements do, and the resources that were asked for."""

    name: str
    elements: list[list[str]]  # ids of the runs that share an element
    settings: dict[str, list]  # KEY VALUE pairs by id
    labels: dict[str, str]  # by id
    needs: dict[str, str]  # id of the prerequisite by id, where it had no record yet
    minutes: int
    memory_gb: float
    created: float = field(default_factory=time.time)
    versions: dict[str, str | None] = field(default_factory=dict)  # of the worker's packages, asked when submitting
    scratch: str = ""

    def keys(self) -> list[tuple[str, int]]:
        """(name, index) of every element."""
        return [(self.name, index) for index in range(len(self.elements))]

    @classmethod
    def read(cls, path: Path) -> Submission:
        try:
            return cls(**json.loads(path.read_text()))
        except (ValueError, TypeError) as error:
            raise ConfigError(
                f"{path} cannot be read ({error}): it is damaged, or of another version of seval; once "
                "nothing of that name is in the queue, delete it"
            ) from None

    def write(self, folder: Path) -> Path:
        """Its ledger; an `OSError` here means that nothing was submitted."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.name}.json"
        write_json(path, asdict(self))
        return path


def submissions(folder: Path) -> list[Submission]:
    """All submissions of a folder, in the order they were made."""
    return sorted(map(Submission.read, folder.glob("seval-*.json")), key=lambda each: (each.created, each.name))
