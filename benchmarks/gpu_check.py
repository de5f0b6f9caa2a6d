"""Check this code on your GPU: its GPU tests, both phases of SEVAL on real images, and the timings of a step.

Takes less than ten minutes and writes one report, which is complete up to the part that is running. Attach it when you
report a problem. `make gpu-check` runs this.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from benchmarks.timing import machine
from seval.files import replace

ROOT = Path(__file__).resolve().parents[1]
TAIL = 40  # lines of a part's output in the report
LIMIT = 300  # seconds of a part


def parts(folder: Path, cpu: bool) -> dict[str, list[str]]:
    """Each part and its command."""
    seval = ["main.py", "--config-file", "configs/tiny/fixmatch_seval_load.yaml", "--with-prerequisites"]
    seval += ["OUTPUT_DIR", str(folder / "runs"), "DATASET.ROOT", "data", "RUNTIME.PROGRESS", "lines"]
    step = ["benchmarks/step.py", "--pairs", "50", "--packed", "4", "--json", str(folder / "step.json")]
    if cpu:
        seval += ["GPU_ID", "-1", "SOLVER.MAX_ITER", "60", "PERIODS.EVAL", "30", "PERIODS.QUALITY", "60"]
        step = ["benchmarks/step.py", "--pairs", "2", "--method", "fixmatch", "--cpu"]
    return {
        "GPU tests": ["-m", "pytest", "-m", "gpu", "-p", "no:cacheprovider", "-rs"],
        "both phases of SEVAL": seval,
        "a step, timed": step,
    }


def run(command: list[str]) -> tuple[str, str]:
    """(outcome, the last lines that it printed); stopped after `LIMIT` seconds."""
    begun = time.monotonic()
    process = [sys.executable, *command]
    try:
        done = subprocess.run(process, cwd=ROOT, stdout=-1, stderr=-2, text=True, errors="replace", timeout=LIMIT)
        outcome, text = "passed" if done.returncode == 0 else f"failed with exit code {done.returncode}", done.stdout
    except subprocess.TimeoutExpired as error:
        said = error.stdout or b""
        outcome, text = f"stopped after {LIMIT} s", said if isinstance(said, str) else said.decode(errors="replace")
    tail = "\n".join(text.splitlines()[-TAIL:])
    return f"{outcome} in {time.monotonic() - begun:.0f} s", tail


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report", type=Path, default=Path("gpu-check.md"), help="default: gpu-check.md")
    parser.add_argument("--cpu", action="store_true", help="only try this script, on the CPU and in a minute")
    args = parser.parse_args()
    if not (args.cpu or torch.cuda.is_available()):
        built = (
            f"PyTorch {torch.__version__} is built for CUDA {torch.version.cuda}"
            if torch.version.cuda
            else (f"PyTorch {torch.__version__} is a build without CUDA")
        )
        print(
            f"error: no GPU that PyTorch can use; {built}; nvidia-smi says whether a driver is there", file=sys.stderr
        )
        return 2
    about = machine(torch.device("cpu" if args.cpu else "cuda"))
    text = "# GPU check\n\n" + "".join(f"- {key}: {value}\n" for key, value in about.items())
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        for name, command in parts(Path(folder), args.cpu).items():
            print(f"{name}: {' '.join(command)}", file=sys.stderr)
            outcome, tail = run(command)
            failed |= not outcome.startswith("passed")
            text += f"\n## {name}: {outcome}\n\n`python {' '.join(command)}`\n\n```\n{tail}\n```\n"
            text = text.replace(folder, "DIR")
            replace(args.report, text.encode())
            print(f"  {outcome}", file=sys.stderr)
    print(args.report)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
