"""Every array is used by a test."""

from __future__ import annotations

import importlib

import pytest

from tests.vectors.loading import FOLDER, arrays, matches, used_patterns


@pytest.mark.parametrize("name", ["splits", "seval", "augment", "network", "methods"])
def test_every_array_is_used_by_a_test(name):
    patterns: set[str] = set()
    for file in FOLDER.glob(f"test_{name}*.py"):
        module = importlib.import_module(f"tests.vectors.{file.stem}")
        tests = [value for value in vars(module).values() if getattr(value, "uses", ("",))[0] == name]
        patterns = patterns.union(*map(used_patterns, tests))
    assert [key for key in arrays(name) if not matches(key, tuple(patterns))] == []


def test_no_file_of_vectors_is_forgotten():
    assert {file.stem for file in FOLDER.glob("*.npz")} == {"splits", "seval", "augment", "network", "methods"}
