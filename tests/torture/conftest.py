"""One zygote for all campaigns, and their table at the end."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.torture.lab import Lab
from tests.torture.shim import Zygote, compiler
from tests.torture.table import Row, page


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


@pytest.fixture
def report(record_property: Callable[[str, object], None]) -> Callable[[Row], None]:
    """Puts a row into the table at the end, from whatever process the campaign runs in."""
    return lambda row: record_property("torture", row.plain())


def pytest_terminal_summary(terminalreporter) -> None:
    done = terminalreporter.getreports("passed") + terminalreporter.getreports("failed")
    rows = [Row(**row) for report in done for name, row in report.user_properties if name == "torture"]
    if rows:
        terminalreporter.section("torture")
        terminalreporter.write_line(page(sorted(rows, key=lambda row: row.campaign)))
