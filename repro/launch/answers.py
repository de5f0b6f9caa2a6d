"""Reads what squeue and sacct print: a line for every element, with four columns, of which the name is the first.

A site may print other lines too, such as a banner. Nothing here fails or grows with what a line says: a line is a row
of ours, or it names one of ours and cannot be read, or it is foreign.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

#: A job in any other state, such as a new state of a later SLURM, is queued or running.
ENDED = {
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "LAUNCH_FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "PREEMPTED",
    "RECONFIG_FAIL",
    "REVOKED",
    "TIMEOUT",
}
LARGEST_ARRAY = 4_000_001  # SLURM's own limit of MaxArraySize
_NUMBER = re.compile(r"(\d{1,12})(?:_(\d{1,9}|\[[\d,:-]+(?:%\d+)?\]))?", re.ASCII)
_PIECE = re.compile(r"(\d{1,9})(?:-(\d{1,9})(?::(\d{1,9}))?)?", re.ASCII)
_NAME = re.compile(r"seval-[0-9A-Za-z]+")
_STATE = re.compile(r"([A-Z][A-Z_]*)(?: by .*)?")
_EXIT_CODE = re.compile(r"(?:\d{1,3}(?::\d{1,3})?)?", re.ASCII)


class Row(NamedTuple):
    """What SLURM says about one element."""

    name: str
    id: str
    index: int
    state: str
    more: str  # of squeue the reason, of sacct the exit code and the signal


@dataclass
class Answer:
    """What squeue or sacct says about submissions of ours."""

    rows: dict[tuple[str, int], Row] = field(default_factory=dict)  # by name and index
    unreadable: dict[str, str] = field(default_factory=dict)  # by name, a line that cannot be read
    foreign: str = ""  # a line about nothing of ours

    def add(self, command: str, text: str, lengths: Mapping[str, int]) -> None:
        """What squeue or sacct printed about submissions with these numbers of elements, by name."""
        lines = filter(None, map(str.strip, text.split("\n")))
        for line in sorted(lines, key=lambda line: not _is_rest(line, lengths)):
            try:
                for row in _rows(command, line, lengths):
                    before = self.rows.get((row.name, row.index))
                    if command == "sacct" or before is None or before.state in ENDED:  # what is in the queue counts
                        self.rows[row.name, row.index] = row
            except ValueError:
                ours = [name for name in _NAME.findall(line) if name in lengths]
                self.unreadable |= dict.fromkeys(ours, line)
                self.foreign = self.foreign if ours else line


def _rows(command: str, line: str, lengths: Mapping[str, int]) -> list[Row]:
    """The elements of one line. Raises `ValueError` where it is not a row of ours."""
    name, number, state, more = line.split("|", 3)
    word = _STATE.fullmatch(state)
    if name not in lengths or not word or (command == "sacct" and not _EXIT_CODE.fullmatch(more)):
        raise ValueError(line)
    if _is_rest(line, lengths):
        if command != "squeue" or word[1] not in ENDED:
            raise ValueError(f"{number!r} has no index")
        number += f"_[0-{lengths[name] - 1}]"
    return [Row(name, id, index, word[1], more) for id, index in elements(number, lengths[name])]


def _is_rest(line: str, lengths: Mapping[str, int]) -> bool:
    """Whether a row of an array has no index. squeue prints it for the elements that were canceled while they waited,
    all at once; those that began have rows of their own, which are read later and so count."""
    name, _, number = line.partition("|")
    return lengths.get(name, 1) != 1 and "_" not in number.partition("|")[0]


def elements(number: str, length: int = LARGEST_ARRAY) -> Iterator[tuple[str, int]]:
    """(id, index) of each element that SLURM writes as 12_3, as 12_[0-2,5,6-10:2%4], or as 12 for an array of one.

    Raises `ValueError` for any other text, and for an index that an array of `length` elements does not have.
    """
    found = _NUMBER.fullmatch(number)
    if not found:
        raise ValueError(f"{number!r} is no element of an array")
    job, part = found.groups()
    if part is None:
        yield job, 0
        return
    ranges = [_range(piece, length) for piece in part.strip("[]").partition("%")[0].split(",")]
    if sum(map(len, ranges)) > length:
        raise ValueError(f"{number!r} has an element twice")
    for each in ranges:
        yield from ((f"{job}_{index}", index) for index in each)


def _range(piece: str, length: int) -> range:
    """The indices of `7`, `0-2` or `6-10:2`. Raises `ValueError`."""
    if not (found := _PIECE.fullmatch(piece)):
        raise ValueError(f"{piece!r} is no range of elements")
    first, last, step = found.groups()
    indices = range(int(first), int(last or first) + 1, int(step or 1))
    if not indices or indices[-1] >= length:
        raise ValueError(f"{piece!r} is not among {length} elements")
    return indices
