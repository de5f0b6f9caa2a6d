"""Table 10: the configured hyper-parameters beside those of the paper."""

from __future__ import annotations

import re
from pathlib import Path

from repro import aggregate
from repro.tables import settings as hyperparameters
from repro.tables import table as tables
from tests.tables.paper import C100_50


def test_table_10_is_read_from_the_configurations() -> None:
    table = tables.find_table("10")
    written = {(cell.row, cell.column): hyperparameters.compared(table, cell) for cell in table.cells()}
    assert written["t", C100_50] == ["0.5", "0.5"] and written["B", C100_50] == ["25", "25"]
    assert written["t_V", "STL10-LT n1=450"] == ["0.85", "0.85"] and written["t_V", "Semi-Aves U=Uin"] == ["", ""]
    assert sum(bool(reported) for _, reported in written.values()) == 62
    assert all(ours == reported for ours, reported in written.values()), "configurations agree with the paper"
    assert not any(cell.runs for cell in table.cells())


def test_a_value_other_than_the_papers_is_marked(tmp_path: Path) -> None:
    text = (tables.TABLES / "table10.yaml").read_text()
    (tmp_path / "other.yaml").write_text(text.replace("STL10-LT n1=450: 0.85", "STL10-LT n1=450: 0.8"))
    assert aggregate.main(["--table", str(tmp_path / "other.yaml"), "--out", str(tmp_path)]) == 0
    assert "| ≠ 0.8 |" in re.sub(" +", " ", (tmp_path / "other.md").read_text())
    assert r"$\neq$ 0.8" in (tmp_path / "other.tex").read_text()
    (tmp_path / "other.yaml").write_text(text.replace("  eta_pi:", "  eta_p:"))
    assert aggregate.main(["--table", str(tmp_path / "other.yaml"), "--out", str(tmp_path)]) == 2
