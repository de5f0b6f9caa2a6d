"""The code of docs/library.md runs, and prints what the page says."""

from __future__ import annotations

import contextlib
import io
import re

import pytest
import torch

import seval
from seval.config import load
from tests.settings import ROOT, SMALL
from tests.test_docs import fences

PAGE = ROOT / "docs" / "library.md"
NEAR = 0.03  # versions of PyTorch and scikit-learn round and draw differently


def printed(code: str, names: dict) -> str:
    """What a block prints, with the `names` of earlier blocks."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(compile(code, str(PAGE), "exec"), names)
    return out.getvalue()


def numbers(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"\d+(?:\.\d+)?", text)]


def promised(code: str) -> list[float]:
    """The numbers in comments behind `print`."""
    return numbers(" ".join(re.findall(r"^print\(.*\)  # (.*)$", code, re.M)))


@pytest.fixture
def blocks(in_root) -> dict[str, str]:
    """The blocks by the heading above them."""
    parts = re.split(r"^## (.*)$", PAGE.read_text(), flags=re.M)
    texts = (re.findall(r"^```python\n(.*?)^```", part, re.M | re.S) for part in parts[2::2])
    found = dict(zip(parts[1::2], texts, strict=True))
    assert sum(found.values(), []) == fences(PAGE, "python") and all(len(block) == 1 for block in found.values())
    return {heading: block for heading, (block,) in found.items()}


def test_a_run_and_its_network(blocks, tmp_path, monkeypatch):
    """With a run of a second in place of the page's."""
    monkeypatch.setattr(
        seval, "load", lambda file, pairs: load(file, [*pairs, *SMALL, "OUTPUT_DIR", tmp_path]), raising=False
    )
    names: dict = {}
    printed(blocks["A run, and its network"], names)
    assert names["accuracy"] == names["record"]["results"]["test"]["ema"]["seval"]["top1"]["last"]
    assert len(names["curve"]) == len(names["pi"]) == 4 and repr(names["run"]).endswith(", done>")
    assert names["probs"].shape == (100, 10) and torch.allclose(names["probs"].sum(1), torch.ones(100))
    assert set(names["names"]) <= set(names["run"].image_set.class_names)


def test_any_classifier(blocks):
    pytest.importorskip("sklearn")
    names: dict = {}
    for heading in ("Correct any classifier for class imbalance", "Thresholds for a wanted precision"):
        code = blocks[heading]
        assert numbers(printed(code, names)) == pytest.approx(promised(code), abs=NEAR) and promised(code)


def test_a_policy_in_a_training_loop(blocks):
    code = blocks["A policy in your own training loop"]
    plain, corrected = numbers(printed(code, {}))
    assert [plain, corrected] == pytest.approx(promised(code), abs=NEAR)
