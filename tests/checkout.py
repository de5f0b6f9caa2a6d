"""A checkout of two small configurations and one table."""

from __future__ import annotations

from pathlib import Path

import pytest

from repro.tables import table as tables


def make_checkout(folder: Path, table: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write `plain`, `replay` and the table `sweep` below `folder`, and let the commands look for them there."""
    for name, text in {
        "configs/small/plain.yaml": "SOLVER: {MAX_ITER: 500}",
        "configs/small/replay.yaml": "SOLVER: {MAX_ITER: 1000}\nPREREQUISITE: [MEMO, first]",
        "paper_tables/sweep.yaml": table,
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    monkeypatch.setattr(tables, "CONFIGS", folder / "configs")
    monkeypatch.setattr(tables, "TABLES", folder / "paper_tables")
