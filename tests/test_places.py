"""Where the files beside the package are found, and the commands that messages name."""

from __future__ import annotations

import sys

import pytest

from seval.places import called


@pytest.mark.parametrize(
    ("this", "expected"),
    [
        ("main.py", "repro/prepare.py"),
        ("../a b/main.py", "../a b/repro/prepare.py"),
        ("repro/status.py", "repro/prepare.py"),
        ("/home/me/seval/repro/submit.py", "/home/me/seval/repro/prepare.py"),
        ("-c", None),
        ("/usr/bin/pytest", None),
    ],
)
def test_a_script_is_called_as_the_caller_called_this_one(this: str, expected: str | None, monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", [this])
    monkeypatch.setattr(sys, "orig_argv", [".venv/bin/python", this])
    found = called("repro/prepare.py")
    assert found == ([".venv/bin/python", expected] if expected else ["python", "repro/prepare.py"])
