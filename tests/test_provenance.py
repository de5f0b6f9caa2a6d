"""A record names the code that made it, and claims nothing that it does not know."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import torch

from seval.policy.base import Rule
from seval.provenance import code, provenance

CPU = torch.device("cpu")


def git(root: Path, *command: str) -> str:
    who = ["-c", "user.name=x", "-c", "user.email=x@x", "-c", "init.defaultBranch=main"]
    own = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    return subprocess.run(["git", *who, *command], cwd=root, capture_output=True, text=True, check=True, env=own).stdout


@pytest.fixture
def checkout(tmp_path) -> Path:
    root = tmp_path / "checkout"
    (root / "seval").mkdir(parents=True)
    for name in ("seval/run.py", "main.py", "README.md"):
        (root / name).write_text("1", encoding="utf-8")
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-qm", "first")
    return root


def test_a_commit_and_whether_the_code_differs_from_it(checkout, capsys):
    head = git(checkout, "rev-parse", "HEAD").strip()
    changes = {"README.md": False, "notes.txt": False, "main.py": True, "seval/mine.py": True}
    for name, dirty in changes.items():
        found = provenance(CPU, checkout)
        assert (found["commit"], found["dirty"]) == (head, False)
        (checkout / name).write_text("2", encoding="utf-8")
        assert provenance(CPU, checkout)["dirty"] is dirty, name
        git(checkout, "stash", "-qu")
    assert not capsys.readouterr().err


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")
def test_a_checkout_of_another_user_is_read(checkout):
    (checkout / "main.py").write_text("2", encoding="utf-8")
    for path in [checkout, *checkout.rglob("*")]:
        os.lchown(path, 12345, 12345)
    found = provenance(CPU, checkout)
    assert len(found["commit"]) == 40 and found["dirty"] is True


def test_where_git_does_not_answer_nothing_is_claimed(checkout, monkeypatch, capsys):
    (checkout / ".git" / "HEAD").write_text("nonsense", encoding="utf-8")
    found = provenance(CPU, checkout)
    assert found["commit"] is None and found["dirty"] is None
    assert "git does not say" in capsys.readouterr().err
    monkeypatch.setenv("PATH", "")
    assert provenance(CPU, checkout)["dirty"] is None


def test_code_in_a_folder_of_another_repository_is_not_its_commit(checkout, tmp_path, monkeypatch):
    (checkout / "vendor" / "seval").mkdir(parents=True)
    found = provenance(CPU, checkout / "vendor")
    assert found["commit"] is None and found["dirty"] is None
    monkeypatch.setenv("SEVAL_REVISION", "ab" * 20)
    found = provenance(CPU, checkout / "vendor")
    assert found["commit"] == "ab" * 20 and found["dirty"] is None


def test_the_environment_does_not_point_git_elsewhere(checkout, tmp_path, monkeypatch):
    head = git(checkout, "rev-parse", "HEAD").strip()
    for key in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.setenv(key, str(tmp_path))
    assert provenance(CPU, checkout)["commit"] == head


def typed(text: str) -> type[Rule]:
    """The rule of a text that is in no file, as in a cell of a notebook."""
    namespace: dict = {"__name__": "no_such_module", "Rule": Rule}
    exec(text, namespace)
    return namespace["Mine"]


def test_a_rule_that_is_in_no_file_is_known_by_what_it_does():
    text = (
        "class Mine(Rule):\n    def forward(self, pseudo, step):\n        return pseudo if 0.5 in {0.5, 1} else step\n"
    )
    same, other = text.replace("):\n", "):  # a word\n"), text.replace("0.5 in", "0.25 in")
    assert code([typed(text)]) == code([typed(text)]) == code([typed(same)])
    assert len({code(), code([typed(text)]), code([typed(other)])}) == 3
