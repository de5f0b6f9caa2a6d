"""The runs in a folder."""

from __future__ import annotations

from pathlib import Path

from repro.listing.found import Found, look
from repro.tables.reading import Reading
from seval.ids import ids


def runs(output: Path, reading: Reading) -> list[Found]:
    """All of them."""
    return [look(output / id, reading) for id in ids(output)]
