from __future__ import annotations

import pytest
import torch

from tests.settings import ROOT


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def in_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder from which commands are called, with paths relative to it."""
    monkeypatch.chdir(ROOT)
