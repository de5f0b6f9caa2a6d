"""Lock, package, Dockerfile, environment.yml and workflow agree; the entry point; no loader that could run code."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import torch
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from seval.provenance import provenance
from tests.settings import ROOT

FILES = ("pyproject.toml", "requirements.lock", "Dockerfile", "environment.yml", "Makefile", "CITATION.cff")
FILES += ("CHANGELOG.md", ".github/workflows/ci.yml")
#: Where a fork of the lock begins, and the newest Python that is tested.
PYTHONS = ("3.11", "3.12", "3.13")
#: The lock that an image was made from.
INSTALLED = Path("/opt/lock")
NOT_IN_THE_IMAGE = {".ci", ".gitignore", ".pre-commit-config.yaml"}
LINUX = {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64", "os_name": "posix"}


def pins(lock: Path) -> dict[Requirement, int]:
    """Every pin of the lock, with the number of its hashes."""
    text = re.sub(r"^(\s*#|--).*$", "", lock.read_text(), flags=re.M)
    lines = [line.split("--hash=") for line in text.replace("\\\n", " ").splitlines() if line.strip()]
    return {Requirement(pin): sum(value.startswith("sha256:") for value in hashes) for pin, *hashes in lines}


def drift(root: Path) -> list[str]:
    """What does not agree."""
    found = []
    project = tomllib.loads((root / "pyproject.toml").read_text())
    docker = (root / "Dockerfile").read_text()
    conda = yaml.safe_load((root / "environment.yml").read_text())["dependencies"]
    makefile = (root / "Makefile").read_text()
    ci = yaml.safe_load((root / ".github/workflows/ci.yml").read_text())["jobs"]

    locked = pins(root / "requirements.lock")
    for pin, hashes in locked.items():
        if not re.fullmatch(r"==[\w.+]+", str(pin.specifier)) or pin.url:
            found.append(f"{pin} is not pinned")
        if not hashes:
            found.append(f"{pin} has no hash")
    extras = project["project"]["optional-dependencies"]
    asked = [*project["project"]["dependencies"], *extras["report"], *extras["test"]]
    asked += project["build-system"]["requires"]
    for python in PYTHONS:
        where = LINUX | {"python_version": python, "python_full_version": f"{python}.0"}
        for text in asked:
            wanted = Requirement(text)
            versions = [
                str(pin.specifier).removeprefix("==")
                for pin in locked
                if canonicalize_name(pin.name) == canonicalize_name(wanted.name)
                and (pin.marker is None or pin.marker.evaluate(where))
            ]
            if len(versions) != 1 or not wanted.specifier.contains(versions[0]):
                found.append(f"{wanted} is locked to {versions} on Python {python}")

    pythons = {
        "Dockerfile": re.findall(r"^ARG BASE_IMAGE=\S*python:(\d+\.\d+)", docker, re.M),
        "environment.yml": [word.partition("=")[2] for word in conda if str(word).startswith("python=")],
        "Makefile": sorted(set(re.findall(r"--python-version (\S+)", makefile))),
        "ci.yml": ci["test"]["strategy"]["matrix"]["python"][:1],
        "pyproject.toml": [project["project"]["requires-python"].removeprefix(">=")],
    }
    if any(versions != ["3.11"] for versions in pythons.values()):
        found.append(f"versions of Python: {pythons}")

    installs = [line for line in docker.splitlines() if "pip install" in line]
    if len(installs) != 1 or "--require-hashes" not in installs[0] or "ARG LOCK=requirements.lock\n" not in docker:
        found.append(f"Dockerfile installs other than from the lock with hashes: {installs}")
    rest = [word for word in conda if not str(word).startswith(("python=", "pip"))]
    if rest != [{"pip": ["-r requirements.lock"]}]:
        found.append(f"environment.yml installs {rest}")

    version = project["project"]["version"]
    if yaml.safe_load((root / "CITATION.cff").read_text())["version"] != version:
        found.append(f"CITATION.cff is not of version {version}")
    headings = re.findall(r"^## \[?([^\s\]]+)", (root / "CHANGELOG.md").read_text(), re.M)
    if "Unreleased" not in headings[:1] and headings[:1] != [version]:
        found.append(f"CHANGELOG.md begins with {headings[:1]}, not with Unreleased or {version}")
    return found


def test_everything_that_installs_agrees():
    assert drift(ROOT) == []


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("requirements.lock", r"^torch==\S+", "torch==2.1.0"),
        ("requirements.lock", r"^yacs==", "yacs>="),
        ("requirements.lock", r"^tabulate==[^#]*", ""),
        ("requirements.lock", r"^(tqdm==\S+) \\(\n +--hash=\S+( \\)?)+", r"\1"),
        ("requirements.lock", r"^setuptools==\S+", "setuptools==60.0"),
        ("pyproject.toml", r'"scipy>=1.11"', '"scipy>=99"'),
        ("pyproject.toml", r'"h5py>=3.10",', '"h5py>=3.10", "polars",'),
        ("pyproject.toml", r"^version = .*", 'version = "9.9"'),
        ("Dockerfile", r"python:3\.11", "python:3.12"),
        ("Dockerfile", r"--require-hashes ", ""),
        ("environment.yml", r"python=3\.11", "python=3.10"),
        ("environment.yml", r"  - pip:", "  - numpy\n  - pip:"),
        ("Makefile", r"--python-version 3\.11", "--python-version 3.13"),
        ("CITATION.cff", r"^version: .*", "version: 7"),
        ("CHANGELOG.md", r"^## Unreleased", "## 9.9"),
    ],
)
def test_drift_is_noticed(tmp_path, file, old, new):
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    text = (tmp_path / file).read_text()
    changed = re.sub(old, new, text, count=1, flags=re.M)
    assert changed != text
    (tmp_path / file).write_text(changed)
    assert drift(tmp_path)


@pytest.mark.skipif(not os.environ.get("SEVAL_IMAGE"), reason="only an image holds exactly a lock")
def test_the_image_holds_what_its_lock_says():
    lock = {canonicalize_name(pin.name): pin for pin in pins(INSTALLED) if not pin.marker or pin.marker.evaluate()}
    installed = {canonicalize_name(each.name): each.version for each in metadata.distributions()}
    wrong = {name for name, pin in lock.items() if name not in installed or installed[name] not in pin.specifier}
    assert not wrong
    assert set(installed) - set(lock) <= {"pip", "seval"}


def test_a_new_file_at_the_top_is_not_forgotten_in_the_image():
    if not shutil.which("git") or not (ROOT / ".git").exists():
        pytest.skip("no git checkout")
    done = subprocess.run(["git", "-C", str(ROOT), "ls-files"], capture_output=True, text=True, check=True)
    top = {line.partition("/")[0] for line in done.stdout.splitlines()} - NOT_IN_THE_IMAGE
    named = re.findall(r"^!([^/\n]+)$", (ROOT / ".dockerignore").read_text(), re.M)
    assert not [name for name in top if not any(Path(name).match(pattern) for pattern in named)]


@pytest.fixture
def home(tmp_path) -> Path:
    """The entry point in a stand-in for the image, whose python says with which arguments it was called."""
    home = tmp_path / "opt"
    for name in ("main.py", "repro/aggregate.py", "repro/submit.py", "configs/tiny/fixmatch.yaml"):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).touch()
    (home / "entrypoint.sh").write_text(
        (ROOT / "image/entrypoint.sh").read_text().replace("home=/opt/seval", f"home={home}")
    )
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (tmp_path / "bin/python").chmod(0o755)
    return home


@pytest.mark.parametrize(
    ("given", "called"),
    [
        ([], ["{home}/main.py"]),
        (["--list-methods"], ["{home}/main.py", "--list-methods"]),
        (["SEED", "1"], ["{home}/main.py", "SEED", "1"]),
        (
            ["--config-file", "configs/tiny/fixmatch.yaml", "HEADS.LINEAR.POLICY", "threshold(0.9) | one_hot"],
            ["{home}/main.py", "--config-file", "{home}/configs/tiny/fixmatch.yaml", "HEADS.LINEAR.POLICY",
             "threshold(0.9) | one_hot"],
        ),
        (["--config-file", "mine.yaml"], ["{home}/main.py", "--config-file", "mine.yaml"]),
        (["repro/submit.py", "--table", "demo"], ["{home}/repro/submit.py", "--table", "demo"]),
        (["repro/aggregate.py", "--table", "demo"],
         ["{home}/repro/aggregate.py", "--table", "demo", "--out", "paper_tables"]),
        (["repro/aggregate.py", "--out", "here"], ["{home}/repro/aggregate.py", "--out", "here"]),
        (["python", "-m", "submitit.core._submit", "folder with spaces"],
         ["-m", "submitit.core._submit", "folder with spaces"]),
        (["mine.py", "--x"], ["mine.py", "--x"]),
    ],
)  # fmt: skip
def test_entry_point(home, given, called):
    work = home.parent / "work"
    work.mkdir()
    for name in ("mine.yaml", "repro/submit.py"):  # as in a checkout
        (work / name).parent.mkdir(exist_ok=True)
        (work / name).touch()
    path = os.pathsep.join([str(home.parent / "bin"), os.environ["PATH"]])
    done = subprocess.run(
        ["sh", str(home / "entrypoint.sh"), *given], cwd=work, env={"PATH": path}, capture_output=True, text=True
    )
    assert done.stdout.splitlines() == [word.format(home=home) for word in called], done.stderr


@pytest.mark.parametrize("script", sorted((ROOT / "image").glob("*.sh")), ids=lambda path: path.name)
def test_scripts_are_sh(script):
    assert subprocess.run(["sh", "-n", str(script)], capture_output=True).returncode == 0


def test_a_record_in_a_checkout_does_not_name_the_commit_of_the_image(tmp_path, monkeypatch):
    monkeypatch.setenv("SEVAL_REVISION", "ab" * 20)
    assert provenance(torch.device("cpu"), tmp_path)["commit"] == "ab" * 20
    (tmp_path / ".git").mkdir()
    assert provenance(torch.device("cpu"), tmp_path)["commit"] is None


def unsafe(tree: ast.AST) -> list[str]:
    """Calls that could run what a file or a peer says."""
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name, words = ast.unparse(node.func), {word.arg: ast.unparse(word.value) for word in node.keywords}
        never = name in ("eval", "exec", "pickle.load", "pickle.loads", "pickle.Unpickler", "cloudpickle.load",
                         "cloudpickle.loads", "yaml.unsafe_load", "yaml.full_load", "torch.hub.load")  # fmt: skip
        if never or name.startswith(("dill.", "joblib.", "marshal.", "shelve.")):
            found.append(name)
        if name == "torch.load" and words.get("weights_only") != "True":
            found.append("torch.load without weights_only")
        if name == "np.load" and words.get("allow_pickle") != "False":
            found.append("np.load that may unpickle")
        if name == "yaml.load" and "_Loader" not in [ast.unparse(value) for value in node.args]:
            found.append("yaml.load without the safe loader")
        if words.get("shell") == "True" or name == "os.system":
            found.append("a shell")
    return found


#: Bytes that a process pickled itself and hands to its own workers.
IN_MEMORY = {"seval/data/decode.py": ["pickle.loads"]}


@pytest.mark.parametrize(
    "file", [ROOT / "main.py", *sorted(ROOT.glob("seval/**/*.py")), *sorted(ROOT.glob("repro/**/*.py"))],
    ids=lambda path: str(path.relative_to(ROOT)),
)  # fmt: skip
def test_nothing_that_could_run_code_is_loaded(file):
    assert unsafe(ast.parse(file.read_text())) == IN_MEMORY.get(str(file.relative_to(ROOT)), [])


def test_unsafe_loaders_are_noticed():
    code = "torch.load(x); np.load(x, allow_pickle=True); pickle.load(x); yaml.load(x, yaml.Loader); eval(x)"
    assert len(unsafe(ast.parse(code))) == 5
    assert not unsafe(ast.parse("torch.load(x, weights_only=True); yaml.safe_load(x); net.eval(); literal_eval(x)"))
