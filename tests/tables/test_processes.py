"""The scripts in processes of their own: Ctrl-C while they start, and terminals that are not in UTF-8."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.settings import ROOT
from tests.tables.commands import call


@pytest.mark.parametrize(
    "script, imports", [("aggregate", 1), ("aggregate", 400), ("aggregate", 1200), ("status", 100), ("submit", 800)]
)
def test_ctrl_c_while_packages_are_imported_is_one_line(script: str, imports: int, tmp_path: Path) -> None:
    words = ["--table", "demo", "--output-dir", str(tmp_path)]
    command = [sys.executable, "-X", "importtime", f"repro/{script}.py", *words]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        left = None
        for line in process.stderr:
            if "repro.tables.interrupts" in line:
                left = imports
            elif left is not None:
                left -= 1
                if not left:
                    process.send_signal(signal.SIGINT)
                    break
        rest = [line for line in process.stderr.read().splitlines() if not line.startswith("import time:")]
    assert left == 0, "it has fewer imports than that"
    assert (process.returncode, rest) == (130, ["interrupted"])


@pytest.mark.parametrize("script", ["aggregate", "status", "submit", "prepare"])
@pytest.mark.parametrize(
    ("failure", "words"),
    [
        ("ImportError('libtorch_cpu.so: failed to map segment from shared object')", "; memory is short"),
        ("ModuleNotFoundError('No module named h5py', name='h5py')", "; write .venv/bin/python"),
        ("MemoryError()", "MemoryError); memory is short"),
    ],
)
def test_a_package_that_cannot_be_loaded_is_one_line(script: str, failure: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "h5py.py").write_text(f"raise {failure}", encoding="utf-8")
    done = call(script, "tiny" if script == "prepare" else "--all", PYTHONPATH=str(tmp_path))
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith(f"error: {sys.executable} cannot run this (") and words in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.fixture(scope="module")
def latin(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a terminal in ISO-8859-1."""
    folder = tmp_path_factory.mktemp("locale")
    if shutil.which("localedef") is None:
        pytest.skip("there is no localedef")
    made = subprocess.run(
        ["localedef", "-i", "en_US", "-f", "ISO-8859-1", str(folder / "en_US")], capture_output=True, text=True
    )
    if not (folder / "en_US").is_dir():
        pytest.skip(f"localedef cannot make this locale: {made.stderr}")
    return {"LOCPATH": str(folder), "LC_ALL": "en_US", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def check(environment: dict[str, str], folder: Path) -> None:
    done = call("aggregate", "--table", "9", "demo", "--out", str(folder), **environment)
    assert done.returncode == 0 and "?" in done.stdout and done.stderr.startswith("runs of "), done.stderr
    assert "±" in (folder / "demo.md").read_bytes().decode("utf-8")
    for script, more in (("status", []), ("submit", ["--cluster", "local", "--dry-run"])):
        done = call(script, "--table", "demo", "--output-dir", str(folder / "runs"), *more, **environment)
        assert (done.returncode, done.stderr) == (0, "") and "15 runs" in done.stdout


def test_a_terminal_in_latin_1(latin: dict[str, str], tmp_path: Path) -> None:
    check(latin, tmp_path)


def test_a_pipe_in_ascii(tmp_path: Path) -> None:
    check({"PYTHONIOENCODING": "ascii"}, tmp_path)
    done = call("prepare", "tiny", "--verify", PYTHONIOENCODING="ascii")
    assert done.returncode == 0 and not done.stderr


@pytest.mark.parametrize("script", ["submit", "status", "aggregate", "prepare"])
def test_a_python_without_the_packages_is_told_in_one_line(script: str) -> None:
    missing = "sys.modules |= dict.fromkeys(['h5py', 'numpy', 'submitit', 'tabulate', 'torch', 'yaml'])"
    start = f"runpy.run_path('repro/{script}.py', run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", f"import runpy, sys; {missing}; {start}"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2 and done.stderr.startswith(f"error: {sys.executable} cannot run this")
    assert done.stderr.count("\n") == 1 and "write .venv/bin/python" in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no such device")
def test_output_that_is_closed_or_not_taken() -> None:
    for script, words in (("status", "--table demo"), ("prepare", "tiny --verify"), ("status", "--table nope")):
        shell = f"{sys.executable} repro/{script}.py {words}"
        for to, codes in ((">/dev/full", {2}), (">&-", {0, 2}), ("2>&-", {0, 2}), (">&- 2>&- <&-", {0, 2})):
            done = subprocess.run(f"{shell} {to}", shell=True, cwd=ROOT, capture_output=True, text=True)
            assert done.returncode in codes and done.stderr.count("\n") <= 1, (shell, to, done.stderr)
