"""Create folders of finished runs, each with a copy of a real record, and print how long repro/runs.py lists them.

Run as `python benchmarks/runs.py [--runs 1000]`. Needs 40 kB of disk space per run. The whole command is timed, with
the start of Python; the fastest of three calls counts.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIMIT = 1.0  # seconds for 1,000
SETTINGS = {"SOLVER.BASE_LR": (0.01, 0.03), "DATASET.TINY.NUM_LABELED_HEAD": (500, 1500), "SOLVER.MAX_ITER": (12, 24)}


def main() -> int:
    """Return 0 if it is fast enough."""
    sys.path.insert(0, str(ROOT))
    from seval.files import sealed
    from seval.run import Run
    from tests.settings import small

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runs = Path(folder) / "runs"
        first = Run(small("fixmatch", Path(folder) / "first"))
        record = {key: value for key, value in first.execute().items() if key != "sha256"}
        for number in range(args.runs):
            own = {key: values[number >> bit & 1] for bit, (key, values) in enumerate(SETTINGS.items())}
            config = record["config"] | own | {"SEED": number // 2 ** len(SETTINGS)}
            written = record | {"id": f"{number:010x}", "config": config}
            (runs / written["id"]).mkdir(parents=True)
            path = runs / written["id"] / "record.json"
            path.write_text(json.dumps(sealed(written), indent=1), encoding="utf-8")
        size = path.stat().st_size
        for name, words in {"list": [], "with a filter": ["SEED=1", "BASE_LR=0.03"], "csv": ["csv"]}.items():
            spent = min(timed([*words, "--output-dir", str(runs)]) for _ in range(3))
            print(f"{name} of {args.runs} runs: {spent:.2f} s (records of {size / 1000:.0f} kB)")
            if spent > LIMIT * max(1, args.runs / 1000):
                return 1
    return 0


def timed(words: list[str]) -> float:
    """The seconds that the command takes."""
    start = time.perf_counter()
    command = [sys.executable, str(ROOT / "repro" / "runs.py"), *words]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


if __name__ == "__main__":
    sys.exit(main())
