"""The rest is in pyproject.toml; this lays the files beside the package into its wheel, as `seval/share`."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
#: MANIFEST.in names the same, for the archive of the sources.
SHARED = ("main.py", "repro/**/*.*", "configs/**/*.yaml", "paper_tables/**/*.yaml", "data/tiny.h5")
SHARED += ("slurm/cluster.yaml", "slurm/requeue.sh", "slurm/run.sbatch")


class BuildWithShare(build_py):
    """Copies the files, unless the package is used where it is."""

    def run(self) -> None:
        super().run()
        share = Path(self.build_lib, "seval", "share")
        shutil.rmtree(share, ignore_errors=True)  # of an earlier build
        for pattern in () if self.editable_mode else SHARED:
            files = [file for file in ROOT.glob(pattern) if file.is_file() and file.suffix != ".pyc"]
            if not files:
                raise SystemExit(f"error: no file here is {pattern}, which belongs into the wheel")
            for file in files:
                target = share / file.relative_to(ROOT)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, target)


setup(cmdclass={"build_py": BuildWithShare})
