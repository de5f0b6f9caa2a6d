"""Ledgers: whatever such a file holds, it is read as it was written, or one line names it."""

from __future__ import annotations

import json
import os
import random
import threading
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from repro import status, submit
from repro.launch.ledger import Submission, alone, submissions
from seval.claim import claim
from seval.errors import ConfigError, RunBusy
from seval.files import sealed
from tests.launch.conftest import ONE, Lab, table
from tests.launch.fake_slurm import submission

MADE = submission("seval-a", ["r0", "r1"], ["r2"], needs={"r0": "q0"}, created=5.0, versions={"torch": "2", "x": None})
MADE.settings |= {"r0": ["GPU_ID", 0, "SOLVER.STEPS", [1, 2]], "r1": ["MEMO", "a", "SEED", 1]}
MADE.data |= {"r0": "0" * 64}
ODD = (
    None,
    True,
    -1,
    10**400,
    1e300,
    0.5,
    "",
    "x",
    "\x1b[2J",
    [],
    [[]],
    [1],
    ["r0"],
    [["r0"]],
    {},
    {"r0": 1},
    {"a": {}},
)
DAMAGE = (b"[", b"{", b"9" * 400, b"null", b",", b'"', b"-1")


def places(value: object, path: tuple = ()) -> Iterator[tuple]:
    """Every place in nested lists and dictionaries."""
    yield path
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield from places(value[key], (*path, key))


def changed(value: object, path: tuple, new: object) -> object:
    """A copy with another value at one place."""
    if not path:
        return new
    copy = value.copy()
    copy[path[0]] = changed(value[path[0]], path[1:], new)
    return copy


def written(value: object) -> str:
    """As if a launcher had written it."""
    return json.dumps(sealed(value) if isinstance(value, dict) else value)


def read(folder: Path, text: str | bytes) -> Submission | None:
    """The ledger of these bytes; None where a single line names it."""
    path = folder / "seval-a.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    try:
        (made,) = submissions(folder)
        return made
    except ConfigError as error:
        said = str(error)
        assert said.startswith(f"{path} cannot be read (") and "`squeue --name=seval-a`" in said
        assert said.isprintable() and len(said) < 1000
        return None


def check(made: Submission) -> None:
    """Every field has the type that it is used as."""
    ids = {id for element in made.elements for id in element}
    assert made.name == "seval-a" and all(made.elements) and made.settings.keys() == made.labels.keys() == ids
    assert all(isinstance(label, str) and label.isprintable() for label in made.labels.values())
    assert all(type(pairs) is list and len(pairs) % 2 == 0 for pairs in made.settings.values())
    assert all(isinstance(value, str) for each in (made.needs, made.data) for value in each.values())
    assert (
        0 < made.minutes < 1e10
        and 0 <= made.memory_gb < 1e10
        and 0 <= made.created < 1e12
        and isinstance(made.scratch, str)
    )


def test_a_ledger_is_read_as_it_was_written(tmp_path: Path) -> None:
    MADE.write(tmp_path)
    assert submissions(tmp_path) == [MADE] and submissions(tmp_path / "no-such") == []


def test_a_ledger_of_the_first_version_has_no_fingerprints(tmp_path: Path) -> None:
    first = {key: value for key, value in asdict(MADE).items() if key != "data"}
    assert read(tmp_path, json.dumps(first)).data == {}


def test_no_flipped_bit_is_believed(tmp_path: Path) -> None:
    whole = MADE.write(tmp_path).read_bytes()
    for bit in range(0, 8 * len(whole), 5):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        assert read(tmp_path, bytes(flipped)) in (None, MADE)


def test_every_field_is_checked_to_its_depth(tmp_path: Path) -> None:
    content, refused = asdict(MADE), 0
    for path in places(content):
        for new in ODD:
            made = read(tmp_path, written(changed(content, path, new)))
            refused += made is None
            if made:
                check(made)
    assert refused > 400
    for key in asdict(MADE).keys() - {"data"}:
        assert read(tmp_path, written({name: value for name, value in content.items() if name != key})) is None


@pytest.mark.parametrize(
    "more", [{"other": 1}, {"name": "seval-b"}, {"name": "../x"}, {"minutes": True}, {"data": []}, {"created": -1}]
)
def test_what_no_launcher_writes_is_refused(tmp_path: Path, more: dict) -> None:
    assert read(tmp_path, written(asdict(MADE) | more)) is None


@pytest.mark.parametrize(
    "text",
    [
        *(
            b"",
            b"null",
            b"[]",
            b"5",
            b"{",
            b"\xff\xfe",
            b"[" * 100_000,
            b'{"name": ' * 50_000,
            b"9" * 10_000,
            b"\0" * 512,
        ),
        *(b"[[[[", b'"seval-a"', b"{}", b"NaN"),
        json.dumps(asdict(MADE)).replace("5.0", "1e999").encode(),
        json.dumps(asdict(MADE)).replace("5.0", "NaN").encode(),
        json.dumps(asdict(MADE)).replace('"minutes": 60', f'"minutes": {"9" * 5000}').encode(),
        json.dumps(asdict(MADE)).replace('"r2"', '"../../r2"').encode(),
        json.dumps(asdict(MADE)).replace('["r2"]', '["r0"]').encode(),
    ],
)
def test_what_is_no_ledger_is_one_line(tmp_path: Path, text: bytes) -> None:
    assert read(tmp_path, text) is None


def test_damaged_bytes_are_read_rightly_or_refused(tmp_path: Path) -> None:
    draw, whole = random.Random(0), json.dumps(asdict(MADE), indent=1).encode()
    for _ in range(600):
        text, place = bytearray(whole), draw.randrange(len(whole))
        match draw.randrange(4):
            case 0:
                text[place] ^= 1 << draw.randrange(8)
            case 1:
                del text[place:]
            case 2:
                text[place : place + 40] = bytes(40)
            case _:
                text[place : place + draw.randrange(40)] = draw.choice(DAMAGE)
        if made := read(tmp_path, bytes(text)):
            check(made)


def test_a_folder_or_a_ledger_that_cannot_be_opened_is_an_error(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "seval-a.json")  # which would hang
    with pytest.raises(OSError, match="cannot read .*seval-a.json: it is not a regular file"):
        submissions(tmp_path)
    told: list[str] = []
    submission("seval-b", ["r"]).write(tmp_path)
    assert [made.name for made in submissions(tmp_path, told.append)] == ["seval-b"] and "seval-a.json" in told[0]
    with pytest.raises(NotADirectoryError):
        submissions(tmp_path / "seval-b.json")


def test_with_a_damaged_ledger_nothing_is_submitted_and_status_shows_the_rest(lab: Lab) -> None:
    lab.table(table(ONE, seeds=[0, 1, 2]))
    lab.submit("--seeds", "0")
    lab.submit("--seeds", "1")
    first, last = lab.ledgers()
    path = lab.runs / "slurm" / f"{first.name}.json"
    whole, before = path.read_text(), len(lab.fake.calls("sbatch"))
    for text in ('{"name": ', "null", whole.replace('"labels": {', '"labels": [{'), whole.replace("0", "[", 1)):
        path.write_text(text)
        for more in ([], ["--dry-run"], ["--cancel"], ["--retry", "oom"]):
            said = lab.submit(*more, code=2)
            assert said.startswith("error: ") and f"{path.name} cannot be read" in said and said.count("\n") == 1
        for more in ([], ["--failed"], ["--json"]):
            out, err = lab.both(status.main, *more)
            assert err.startswith("warning: ") and f"{path.name} cannot be read" in err and err.count("\n") == 1
        assert "queued" in lab.both(status.main)[0]
    assert len(lab.fake.calls("sbatch")) == before and not lab.fake.calls("scancel")
    path.write_text(whole)
    assert lab.kinds() == {"Plain 0": "queued", "Plain 1": "queued", "Plain 2": "new"}


def test_a_second_submitter_says_whom_it_waits_for(lab: Lab) -> None:
    lab.table(table(ONE))
    held, free = threading.Event(), threading.Event()

    def hold() -> None:
        with claim(lab.runs / "slurm", "submit"):
            held.set()
            free.wait(10)

    (lab.runs / "slurm").mkdir(parents=True)
    other = threading.Thread(target=hold)
    other.start()
    held.wait(10)
    with pytest.raises(RunBusy), alone(lab.runs / "slurm", wait=0):
        pass
    said = lab.capsys.readouterr().err
    assert f"is held by process {os.getpid()} on " in said and "waiting for it, at most 0 s" in said
    free.set()
    out, err = lab.both(submit.main, "--cluster", "slurm")
    other.join()
    assert "submitting" in out and err.count("\n") <= 1
