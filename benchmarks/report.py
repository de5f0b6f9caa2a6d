"""Create folders of finished runs, copies of a real one, and print how long the report of them takes.

Run as `python benchmarks/report.py [--runs 200] [--evaluations 500]`. Needs 4 kB of disk space per evaluation.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIMIT = 60.0  # seconds for 200 runs of 500 evaluations
SEEDS = 3
TABLE = """\
title: Copies of one run
folder: tiny
config: fixmatch_seval_load
seeds: [{seeds}]
set: [{settings}]
columns: {{all: {{}}}}
rows:
{rows}
"""


def main() -> int:
    """Return 0 if it is fast enough."""
    sys.path.insert(0, str(ROOT))
    from repro import report
    from repro.tables.table import Table
    from seval.run import Run
    from tests.settings import SMALL, small

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--evaluations", type=int, default=500)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        first = Run(small("fixmatch_seval_estim", Path(folder) / "first", "PERIODS.EVAL", 1, "PERIODS.QUALITY", 12))
        first.execute()
        rows = "\n".join(f"  method {number}: {{set: [MEMO, m{number}]}}" for number in range(-(-args.runs // SEEDS)))
        settings = [*SMALL, "SOLVER.MAX_ITER", 10 * args.evaluations, "PERIODS.EVAL", 10, "PERIODS.QUALITY", 200]
        words, seeds = ", ".join(json.dumps(word) for word in settings), ", ".join(map(str, range(SEEDS)))
        path = Path(folder) / "copies.yaml"
        path.write_text(TABLE.format(seeds=seeds, settings=words, rows=rows), encoding="utf-8")
        runs = {run.id: run for cell in Table.read(path).cells(["OUTPUT_DIR", folder]) for run in cell.runs.values()}
        for run in list(runs.values())[: args.runs]:
            imitate(run, first, args.evaluations)
        out = Path(folder) / "report"
        start, busy = time.perf_counter(), time.process_time()
        code = report.main(["--table", str(path), "--output-dir", folder, "--out", str(out)])
        seconds, busy = time.perf_counter() - start, time.process_time() - busy
        size = (out / "index.html").stat().st_size / 1e6
    print(f"{args.runs} runs of {args.evaluations} evaluations: a page of {size:.1f} MB in {seconds:.1f} s, "
          f"{busy:.1f} s of them on the processor")  # fmt: skip
    return code or int(seconds > LIMIT * max(1, args.runs * args.evaluations / 100_000))


def imitate(run, first, evaluations: int) -> None:
    """A finished run of many evaluations, which repeats those of a short one."""
    from seval.files import sealed
    from seval.record import load_artifacts, read_lines, save_artifacts, write_record

    run.folder.mkdir()
    lines, text = read_lines(first.folder / "metrics.jsonl"), []
    for number in range(evaluations):
        step = 10 * (number + 1)
        line = lines[-1 if step % 200 == 0 else number % (len(lines) - 1)]
        line = line | {"run": run.id, "step": step, "progress": (number + 1) / evaluations}
        text.append(json.dumps(sealed(line)))
    (run.folder / "metrics.jsonl").write_text("\n".join(text) + "\n", encoding="utf-8")
    heads = load_artifacts(first.folder / "artifacts.h5")
    long = {
        head: {name: rows.repeat(-(-evaluations // len(rows)), 0)[:evaluations] for name, rows in arrays.items()}
        for head, arrays in heads.items()
    }
    sha256 = save_artifacts(run.folder / "artifacts.h5", long, {"run": run.id})
    record = {key: value for key, value in first.record().items() if key != "sha256"}
    write_record(run.folder / "record.json", record | {"id": run.id, "artifacts": sha256, "evaluations": evaluations})


if __name__ == "__main__":
    sys.exit(main())
