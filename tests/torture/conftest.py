"""One zygote for all campaigns, and their table at the end."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.torture.lab import Lab
from tests.torture.shim import Zygote, compiler
from tests.torture.table import Row, page

ROWS: list[Row] = []


@pytest.fixture(scope="session")
def zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    if compiler() is None:
        pytest.skip(
            "the faults are injected by a library that is compiled first: no C compiler, or no Linux with glibc"
        )
    zygote = Zygote(tmp_path_factory.mktemp("zygote"))
    yield zygote
    zygote.close()


@pytest.fixture
def lab(zygote: Zygote, tmp_path: Path) -> Lab:
    return Lab(zygote, tmp_path, full=os.environ.get("TORTURE") == "all")


def pytest_terminal_summary(terminalreporter) -> None:
    if ROWS:
        terminalreporter.section("torture")
        terminalreporter.write_line(page(ROWS))
