"""Create folders of finished runs, each with a copy of a real record, and print how long a scan of them takes.

Run as `python benchmarks/status.py [--runs 10000]`. Needs 20 kB of disk space per run.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIMIT = 12.0  # seconds for 10,000


def main() -> int:
    """Return 0 if it is fast enough."""
    sys.path.insert(0, str(ROOT))
    from repro.launch.costs import Costs
    from repro.launch.site import Site, find_site
    from repro.launch.states import counts, states
    from seval.config import with_overrides
    from seval.files import sealed
    from seval.run import Run
    from tests.settings import small

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10_000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        cfg = small("supervised", Path(folder))
        first = Run(cfg)
        first.execute()
        record = first.record()
        size = (first.folder / "record.json").stat().st_size
        start = time.perf_counter()
        runs = [Run(with_overrides(cfg, ["SEED", seed])) for seed in range(args.runs)]
        configured = time.perf_counter() - start
        for run in runs:
            run.folder.mkdir(exist_ok=True)
            own = {key: value for key, value in record.items() if key != "sha256"} | {"id": run.id}
            (run.folder / "record.json").write_text(json.dumps(sealed(own), indent=1), encoding="utf-8")
        start = time.perf_counter()
        found = states(runs, Path(folder) / "slurm", None)
        known = time.perf_counter() - start
        left = Costs(runs, Site.read(find_site())).hours(runs)
        total = time.perf_counter() - start
    print(f"{counts(found)} ({left}): scanned in {total:.2f} s, {known:.2f} s of them for states; records of "
          f"{size / 1000:.0f} kB; {configured:.2f} s for their configurations")  # fmt: skip
    return int(total > LIMIT * max(1, args.runs / 10_000))


if __name__ == "__main__":
    sys.exit(main())
