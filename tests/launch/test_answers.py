"""What squeue and sacct print is read in every form, and whatever it is, it neither fails nor fills the memory."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Iterable

import pytest

from repro.launch.answers import Answer, elements


@pytest.mark.parametrize(
    "text, indices",
    [
        ("12", [0]),
        ("12_3", [3]),
        ("12_[7]", [7]),
        ("12_[0-2,5]", [0, 1, 2, 5]),
        ("12_[0-999%64]", range(1000)),
        ("12_[0-2,5%4]", [0, 1, 2, 5]),
        ("12_[0-8:4]", [0, 4, 8]),
        ("12_[0-9:4]", [0, 4, 8]),
        ("12_[1,4-8:2%1]", [1, 4, 6, 8]),
        ("12_[0-2%99999999999999999999]", [0, 1, 2]),
        ("12_[3-3:999999999]", [3]),
    ],
)
def test_elements_are_read_off_every_form(text: str, indices: Iterable[int]) -> None:
    found = list(elements(text))
    assert [index for _, index in found] == list(indices)
    assert [id for id, _ in found] == [f"12_{index}" if "_" in text else "12" for index in indices]
    assert [pair for id, _ in found for pair in elements(id)] == found


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "x",
            "12_",
            "12_x",
            "_3",
            "12_3_4",
            "12+0",
            "12.batch",
            "12_[]",
            "12_[",
            "12_[3",
            "12_3]",
            "-12",
            "12_-3",
        ),
        *("12_[0-2,]", "12_[,1]", "12_[5-2]", "12_[0-2:0]", "12_[0-2%]", "12_[0-2%4,5]", "12_[0x1F]", "12_[0-2,...]"),
        *("12_-3", "12_[0-99999999999]", "12_[0-999999999]", "12_10", "12_[0-10]", "12_[0-5,3-9,1]", "12_[0-9,0-9]"),
        *("\u0661\u0662", "12_\u0663", " 12", "12\n", "9" * 5000, f"12_{'9' * 5000}", f"12_[0-{'9' * 5000}]"),
        "12_[" + ",".join(["0-9"] * 100_000) + "]",
    ],
)
def test_what_an_array_of_ten_cannot_have_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        list(elements(text, 10))


def test_every_line_is_a_row_of_ours_or_names_one_of_ours_or_is_foreign() -> None:
    answer = Answer()
    answer.add(
        "squeue",
        "banner\nseval-a|1_[0-1]|PENDING|(a|b)\r\nseval-b|2|?|None\nnot seval-c\n",
        {"seval-a": 2, "seval-b": 1},
    )
    assert {key: (row.id, row.state, row.more) for key, row in answer.rows.items()} == {
        ("seval-a", 0): ("1_0", "PENDING", "(a|b)"),
        ("seval-a", 1): ("1_1", "PENDING", "(a|b)"),
    }
    assert answer.unreadable == {"seval-b": "seval-b|2|?|None"} and answer.foreign == "not seval-c"


def test_of_two_rows_of_squeue_the_one_in_the_queue_counts_and_of_sacct_the_last() -> None:
    rows = ["seval-a|1|RUNNING|", "seval-a|2|FAILED|"]
    for order in (rows, rows[::-1]):
        answer = Answer()
        answer.add("squeue", "\n".join(order), {"seval-a": 1})
        assert answer.rows["seval-a", 0].state == "RUNNING"
        answer = Answer()
        answer.add("sacct", "\n".join(order), {"seval-a": 1})
        assert answer.rows["seval-a", 0].state == order[-1].split("|")[2]


def test_a_row_without_index_is_of_the_elements_that_have_no_row_of_their_own() -> None:
    rows = ["seval-a|103|CANCELLED|JobArrayTaskLimit", "seval-a|103_1|COMPLETED|None", "seval-a|103_2|RUNNING|None"]
    for order in (rows, rows[::-1]):
        answer = Answer()
        answer.add("squeue", "\n".join(order), {"seval-a": 4})
        states = {row.id: row.state for row in answer.rows.values()}
        assert states == {"103_0": "CANCELLED", "103_1": "COMPLETED", "103_2": "RUNNING", "103_3": "CANCELLED"}
    for command, state in (("squeue", "RUNNING"), ("sacct", "CANCELLED")):
        answer = Answer()
        answer.add(command, f"seval-a|103|{state}|0:0", {"seval-a": 4})
        assert not answer.rows and answer.unreadable


PARTS = (
    ["seval-a", "seval-b", "seval-c", "seval-", "", "x", "SEVAL-a", "seval-a seval-b"],
    [
        "12",
        "12_0",
        "12_[0-3]",
        "12_[0-2,3%2]",
        "12_[0-99999999999]",
        "12_[0-999999999:1%1]",
        "1" * 9999,
        "",
        "12_[",
        "é_1",
    ],
    ["RUNNING", "PENDING", "FAILED", "CANCELLED by 1000", "CANCELLED+", "", "running", "\x00", "\x1b[2J", "\udce9"],
    ["None", "Priority", "0:0", "1:0", "0:125", ":", "9:9:9", "-1:0", "1e9:0", "", "|", "(null)", "9" * 5000],
)


def test_no_answer_fails_or_fills_the_memory() -> None:
    draw, lengths = random.Random(0), {"seval-a": 4, "seval-b": 1}
    tracemalloc.start()
    for number in range(3000):
        lines = ["|".join(draw.choice(part) for part in PARTS[: draw.choice([1, 3, 4, 4, 4, 4])]) for _ in range(4)]
        line = list(draw.choice(lines))
        for _ in range(draw.randrange(4)):
            line.insert(draw.randrange(len(line) + 1), draw.choice("|\n_[]-:%9\x85"))
        text = draw.choice(["\n", "\r\n"]).join([*lines, "".join(line)])
        answer = Answer()
        answer.add(draw.choice(["squeue", "sacct"]), text, lengths)
        assert all(index < lengths[name] for name, index in answer.rows), number
        assert answer.unreadable.keys() <= lengths.keys()
        named = {row.name for row in answer.rows.values()} | answer.unreadable.keys()
        assert all(name in named for name in lengths if any(each.startswith(f"{name}|") for each in lines)), lines
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()
