"""The list of runs, for people and for spreadsheets."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence

from tabulate import tabulate

from repro.listing.differences import differing, few, shortest, words
from repro.listing.found import METRICS, Found, cut
from repro.tables.reading import NETWORKS, PROTOCOLS, SPLITS, Reading
from repro.tables.texts import in_csv

#: The numbers of a line, with their heads.
NUMBERS = {"top1": "top-1", "balanced_accuracy": "balanced", "few": "few"}
LAST = 20  # evaluations that median20 and mean20 are of, as in seval/evaluate.py
_COLUMNS = ("id", "name", "differs in", "steps", "state", *NUMBERS.values(), "finished", "code")


def ordered(runs: Sequence[Found], keys: Sequence[str]) -> list[Found]:
    """By data set, method, these settings and seed."""

    def place(run: Found) -> tuple:
        return (run.dataset, run.method, [_order(run.value(key)) for key in keys], _order(run.value("SEED")), run.id)

    return sorted(runs, key=place)


def _order(value: object) -> tuple[bool, float, str]:
    """Numbers by size, then all else."""
    is_number = isinstance(value, int | float)
    return (not is_number, value if is_number else 0, "" if is_number else str(value))


def board(runs: Sequence[Found], reading: Reading) -> str:
    """A line for each run, and what its numbers are; columns in which all lines are empty are left out."""
    keys = few(runs)
    names = shortest(keys)
    rows = [
        (
            run.id,
            run.name,
            words(run, keys, names),
            steps(run),
            state(run),
            *(percent(run, metric) for metric in NUMBERS),
            run.finished,
            run.code,
        )
        for run in ordered(runs, keys)
    ]
    kept = [column for column in range(len(_COLUMNS)) if any(row[column] for row in rows)]
    body = [[row[column] for column in kept] for row in rows]
    sides = ["right" if _COLUMNS[column] in (*NUMBERS.values(), "steps") else "left" for column in kept]
    table = tabulate(body, [_COLUMNS[column] for column in kept], disable_numparse=True, colalign=sides)
    notes = [_note(runs, reading)] if any(run.numbers for run in runs) else []
    return "\n".join([table, "", counted(runs), *notes])


def _note(runs: Sequence[Found], reading: Reading) -> str:
    """What the numbers are, and of which runs they are something else."""
    note = f"accuracy and few-shot recall in percent: {said(reading)}"
    fewer = sum(run.state == "done" and (run.evaluations or LAST) < LAST for run in runs)
    if fewer and reading.protocol.endswith(str(LAST)):
        note += f" (in {fewer} run{'' if fewer == 1 else 's'} there are fewer, and all count)"
    partly = any(run.numbers and run.state != "done" for run in runs)
    return note + ("; in brackets: the last evaluation so far" if partly else "")


def said(reading: Reading) -> str:
    """What numbers of such a reading are, in words."""
    offset = ", no offset" if reading.offset == "none" else f", less the offset {reading.offset}"
    return f"{SPLITS[reading.split]}, {NETWORKS[reading.network]}{offset}, {PROTOCOLS[reading.protocol]}"


def counted(runs: Sequence[Found]) -> str:
    """`3 runs: 2 done, 1 running`."""
    kinds = [run.state for run in runs]
    each = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(sorted(kinds, key=_rank)))
    return f"{len(runs)} run{'' if len(runs) == 1 else 's'}: {each}"


def _rank(kind: str) -> int:
    return ("done", "running").index(kind) if kind in ("done", "running") else 2


def steps(run: Found) -> str:
    """`1200`, or `135/1200`."""
    if run.state == "done" and run.step == run.steps:
        return "" if run.step is None else str(run.step)
    return f"{'?' if run.step is None and run.broken else run.step or 0}/{run.steps or '?'}"


def state(run: Found) -> str:
    """The state and, where a file is damaged or a run failed, why."""
    why = run.faults[0] if run.faults else "" if run.state == "running" else run.detail
    return cut(f"{run.state}: {why}" if why else run.state, 90)


def percent(run: Found, metric: str) -> str:
    """`68.20`, in brackets where the run is not done, "" where it is not known."""
    value = run.numbers.get(metric)
    text = "" if value is None else f"{value:.2f}"
    return f"({text})" if text and run.state != "done" else text


def comma_separated(runs: Sequence[Found]) -> str:
    """All that is known of each run, and every setting in which they differ."""
    keys = differing(runs)
    heads = ["id", "method", "dataset", "seed", "state", "reason", "step", "steps", *METRICS, "finished", "commit"]
    heads += ["dirty", "code", "device", "host", "job", "seconds", "needs", "folder", *keys]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(map(in_csv, heads))
    for run in ordered(runs, few(runs)):
        cells: list[object] = [run.id, run.method, run.dataset, run.value("SEED"), run.state]
        cells += [run.faults[0] if run.faults else run.detail, run.step, run.steps]
        cells += [None if (value := run.numbers.get(metric)) is None else round(value, 10) for metric in METRICS]
        cells += [run.about("finished"), run.about("commit"), run.provenance.get("dirty"), run.about("code")]
        cells += [run.about("device"), run.about("host"), run.about("job"), run.seconds, " ".join(run.needs)]
        cells += [str(run.folder), *(_plain(run.value(key)) for key in keys)]
        writer.writerow(_cell(cell) for cell in cells)
    return out.getvalue()


def _plain(value: object) -> object:
    return value if value is None or isinstance(value, str) else json.dumps(value)


def _cell(value: object) -> object:
    if value is None or type(value) in (int, float):
        return "" if value is None else value
    return in_csv(value)
