"""Images listed in a CSV file with the columns path, label and split."""

import csv
import io
import re
from collections.abc import Iterator
from os.path import normpath
from pathlib import Path

from seval.data.sources.own import PARTS, Item, Listing, class_name
from seval.data.sources.own_files import Files
from seval.data.sources.raw import on_disk
from seval.errors import DataError
from seval.files import read_bytes
from seval.text import short, short_line

_LARGEST = 1 << 30  # bytes of a list
_COLUMNS = ("path", "label")  # and split, which may be missing
_NUMBER = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?")


def read_csv(path: Path, folder: Path | None) -> Listing:
    """The images of a list, whose paths are relative to `folder`, by default that of the list, or absolute.

    An empty label is unlabeled, and so is every row of the split unlabeled; an empty or missing split is train. Raises
    `DataError` where the list has no such columns, or its labels are a mixture of numbers and text; and `OSError`.
    """
    items: list[Item] = []
    problems: list[tuple[str, str]] = []
    lines: dict[str, int] = {}
    labels: dict[str, int] = {}
    for line, row in _rows(path):
        where = f"{path.name}, line {line}"
        try:
            item = _item(row)
            if before := lines.get(item.where):
                raise ValueError(f"it repeats the path {short(item.where)} of line {before}")
            lines[item.where] = line
            if item.label:
                labels.setdefault(item.label, line)
            items.append(item)
        except ValueError as error:
            problems.append((where, str(error)))
    _check_labels(path, labels)
    return Listing(Files(folder or path.parent), items, problems, [], f"csv {path.name}")


def _item(row: dict[str, str]) -> Item:
    split = row.get("split", "").strip().lower() or "train"
    if split not in PARTS:
        raise ValueError(f"its split is {short(row['split'])}, but must be one of {', '.join(PARTS)}")
    if not row["path"].strip() or "\0" in row["path"]:
        raise ValueError("its path is empty")
    where = normpath(row["path"].strip())
    if split == "unlabeled" or (split == "train" and not row["label"].strip()):
        return Item("unlabeled", "", where)
    if not row["label"].strip():
        raise ValueError(f"its label is empty, but the split is {split}")
    return Item(split, class_name(row["label"]), where)


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """The number of the line in which each row ends, and its values by column, in lower case."""
    on_disk(path, _LARGEST)
    try:
        text = read_bytes(path, _LARGEST).decode("utf-8-sig")
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        columns = [name.strip().lower() for name in next(reader, [])]
        if missing := [name for name in _COLUMNS if name not in columns]:
            raise DataError(
                f"{path} has no column {' and none '.join(missing)}: its first line is {short(','.join(columns))}, "
                "but must name path, label and perhaps split, with commas between them"
            )
        if len(set(columns)) < len(columns):
            raise DataError(f"{path} names a column twice: {short(','.join(columns))}")
        for row in reader:
            if row and len(row) != len(columns):
                raise DataError(
                    f"{path}, line {reader.line_num}, has {len(row)} values for {len(columns)} columns; "
                    "put values with a comma in quotes"
                )
            if row:
                yield reader.line_num, dict(zip(columns, row, strict=True))
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not text in UTF-8 ({short_line(error)}); save it in that encoding") from None
    except csv.Error as error:
        raise DataError(f"{path} is no CSV with commas ({short_line(error)}); save it as such") from None


def _check_labels(path: Path, labels: dict[str, int]) -> None:
    """Refuse a number in one row and text in another, and one number in two spellings: likely mistakes."""
    numbers = {label: line for label, line in labels.items() if _NUMBER.fullmatch(label)}
    if numbers and len(numbers) < len(labels):
        number, text = next(iter(numbers)), next(label for label in labels if label not in numbers)
        raise DataError(
            f"{path} has the label {short(text)} in line {labels[text]}, but the number {number} in line "
            f"{numbers[number]}; write all labels as numbers or all as text"
        )
    spelled: dict[float, str] = {}
    for label, line in numbers.items():
        if (other := spelled.setdefault(float(label), label)) != label:
            raise DataError(
                f"{path} has the label {label} in line {line} and {other} in line {numbers[other]}; "
                "write a number in one way"
            )
