"""What pip installs: the package of a wheel, and of an editable install in a folder that is called like the package."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.settings import ROOT

SLURM = ("cluster.yaml", "requeue.sh", "run.sbatch")
pytest.importorskip("setuptools", "77")  # what pyproject.toml asks for


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A folder named seval with all that the build reads."""
    root = tmp_path / "seval"
    for name in ("seval", "repro", "configs", "paper_tables", "slurm"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    (root / "slurm" / "site.yaml").touch()  # the builder's own, as is what runs have left
    (root / "paper_tables" / "demo.md").touch()
    (root / "data").mkdir()
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE", "main.py", "data/tiny.h5"):
        shutil.copy(ROOT / name, root / name)
    return root


def built(checkout: Path, kind: str) -> zipfile.ZipFile:
    """The wheel of that kind, as pip has the backend build it."""
    command = f"from setuptools import build_meta; build_meta.build_{kind}('../wheel')"
    subprocess.run([sys.executable, "-c", command], cwd=checkout, check=True, capture_output=True)
    (wheel,) = (checkout.parent / "wheel").glob("*.whl")
    return zipfile.ZipFile(wheel)


def shipped() -> set[str]:
    """The files beside the package that git knows and an installed package needs."""
    files = [ROOT / "main.py", ROOT / "data" / "tiny.h5", *(ROOT / "paper_tables").rglob("*.yaml")]
    files += [file for file in (ROOT / "repro").rglob("*.*") if file.suffix in (".py", ".css", ".js", ".mplstyle")]
    files += [*(ROOT / "configs").rglob("*.yaml"), *(ROOT / "slurm" / name for name in SLURM)]
    return {f"seval/share/{file.relative_to(ROOT).as_posix()}" for file in files}


def test_a_wheel_holds_the_package_with_its_data_and_nothing_else(checkout):
    names = {name for name in built(checkout, "wheel").namelist() if ".dist-info/" not in name}
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "seval").rglob("*.py")}
    assert names == sources | {"seval/py.typed", "seval/data/sources/imagenet127.csv"} | shipped()


def test_a_wheel_can_be_built_from_the_archive_of_the_sources(checkout):
    command = "from setuptools import build_meta; build_meta.build_sdist('../archive')"
    subprocess.run([sys.executable, "-c", command], cwd=checkout, check=True, capture_output=True)
    (archive,) = (checkout.parent / "archive").glob("*.tar.gz")
    shutil.unpack_archive(archive, checkout.parent / "unpacked", filter="data")
    (unpacked,) = (checkout.parent / "unpacked").iterdir()
    names = built(unpacked, "wheel").namelist()
    assert {name for name in names if name.startswith("seval/share/")} == shipped()


def test_an_editable_install_is_found_in_the_folder_above_its_checkout(checkout):
    """There Python first sees the checkout, which has no `__init__.py` at its top: it looks like an empty package."""
    site = checkout.parent / "site"
    built(checkout, "editable").extractall(site)
    command = f"import site; site.addsitedir({str(site)!r}); import seval; print(seval.__version__, seval.__file__)"
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    for folder in (checkout.parent, checkout, site):
        found = subprocess.run(
            [sys.executable, "-S", "-c", command], cwd=folder, env=clean, check=True, capture_output=True, text=True
        )
        assert found.stdout.split()[1] == str(checkout / "seval" / "__init__.py")
