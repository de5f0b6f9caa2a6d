"""A table of real runs, seconds long, and one of made-up records."""

from __future__ import annotations

import json

import pytest

from repro.tables.table import Table
from seval.run import Run
from tests.settings import SMALL

#: A name and a note that a page must show as they are and nothing else.
HOSTILE = '</script><b>x</b> & "q"'
TABLE = """\
title: Real runs & few steps
note: A note with *emphasis*, `code` and <i>no HTML</i>.
folder: tiny
protocol: last
seeds: [0, 1]
set: [{settings}]
columns: {{Fashion-MNIST-LT: {{}}}}
rows:
  Supervised: {{config: supervised, assumed: A choice that the paper leaves.}}
  FixMatch: {{config: fixmatch}}
  FixMatch + LA: {{config: fixmatch, offset: logit_adjusted}}
  SEVAL: {{config: fixmatch_seval_load, offset: seval}}
  '{hostile}': {{config: flexmatch}}
reported:
  Supervised: {{Fashion-MNIST-LT: [45.0, 0.6]}}
  SEVAL: {{Fashion-MNIST-LT: [62.0, 0.6]}}
"""


@pytest.fixture(scope="session")
def real(tmp_path_factory: pytest.TempPathFactory) -> Table:
    """A table whose runs are below its own folder, in `runs`; the last row has none, and one run is half done."""
    folder = tmp_path_factory.mktemp("real")
    words = [*SMALL, "SOLVER.MAX_ITER", 16, "PERIODS.EVAL", 2, "PERIODS.QUALITY", 4]
    path = folder / "real.yaml"
    settings = ", ".join(json.dumps(word) for word in words)
    path.write_text(TABLE.format(settings=settings, hostile=HOSTILE), encoding="utf-8")
    table = Table.read(path)
    for cell in table.cells(["OUTPUT_DIR", str(folder / "runs")]):
        if cell.row != HOSTILE:
            for last in cell.runs.values():
                for run in last.chain():
                    run.execute()
    half_done(next(run for cell in table.cells(["OUTPUT_DIR", str(folder / "runs")]) for run in cell.runs.values()))
    return table


def half_done(run: Run) -> None:
    """Take a run back to its fourth evaluation."""
    (run.folder / "record.json").unlink()
    metrics = run.folder / "metrics.jsonl"
    metrics.write_bytes(b"".join(metrics.read_bytes().splitlines(keepends=True)[:4]) + b'{"run": "torn')
