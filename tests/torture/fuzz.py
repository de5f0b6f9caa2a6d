"""Random overrides, policies, files in YAML, ledgers and answers of SLURM: used, or refused in one line."""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from functools import partial
from pathlib import Path

import torch

from repro.launch.queue import Queue, SlurmError, Submission, latest, submissions
from repro.launch.site import Site
from repro.tables.table import find_table
from seval.config import flatten, load
from seval.defaults import DEFAULTS
from seval.policy.base import Facts
from seval.policy.language import RULES, build_policy, canonical
from seval.run import identity
from tests.launch.fake_slurm import submission
from tests.settings import ROOT
from tests.torture.explore import explore, judged
from tests.torture.grammar import mutated, value
from tests.torture.lab import Lab
from tests.torture.table import Row

Cases = Iterator[tuple[str, Callable[[], object]]]
RECIPES = ("ALGORITHM.NAME", "HEADS.LINEAR.POLICY", "HEADS.LINEAR.LABELED_LOSS", "HEADS.LINEAR.CLASSIFIER")
STATES = ("RUNNING", "PENDING", "COMPLETED", "FAILED", "CANCELLED by 0", "OUT_OF_MEMORY", "NEW_STATE", "")


def overrides(rng: random.Random, folder: Path) -> Cases:
    """KEY VALUE pairs; what is accepted has an id."""
    keys = list(flatten(DEFAULTS))
    while True:
        words: list[str] = []
        for _ in range(rng.randint(1, 3)):
            key = rng.choice(keys) if rng.random() < 0.9 else mutated(rng, rng.choice(keys))
            recipe = f"{rng.choice(('fixmatch', 'mixmatch', 'acr', 'cosine', 'threshold'))}({value(rng)})"
            words += [key, recipe if key in RECIPES and rng.random() < 0.7 else value(rng)]
        words += ["SEED"] * (rng.random() < 0.02)
        yield json.dumps(words), lambda words=words: identity(load((), words)) and None


def policies(rng: random.Random, folder: Path) -> Cases:
    """Chains of rules with random arguments; what is accepted is spelled one way and can be built or refused."""
    facts = Facts(3, torch.ones(3), num_unlabeled=4, num_held_out=2, feature_dim=2)

    def attempt(text: str) -> str | None:
        if canonical(canonical(text)) != canonical(text):
            return "two spellings"
        build_policy(text, facts)
        return None

    def rule() -> str:
        named = rng.choice(("", "", "tau=", "decay=", "power="))
        return rng.choice(list(RULES)) + rng.choice(("", f"({named}{value(rng)})", f"({value(rng)}, {value(rng)})"))

    while True:
        text = " | ".join(rule() for _ in range(rng.randint(1, 4)))
        text = mutated(rng, text) if rng.random() < 0.4 else text
        yield text, partial(attempt, text)


def _files(rng: random.Random, path: Path, texts: list[str], read: Callable[[Path], object]) -> Cases:
    """Mutations of valid files, and of what they say."""

    def attempt(text: str) -> None:
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        read(path)

    while True:
        text = mutated(rng, rng.choice(texts)) if rng.random() < 0.9 else f"{value(rng)}: {value(rng)}\n"
        yield text, partial(attempt, text)


def configurations(rng: random.Random, folder: Path) -> Cases:
    """Mutations of configuration files, complete ones among them."""
    texts = [file.read_text() for file in (ROOT / "configs").glob("[mt]*/*.yaml")]
    return _files(rng, folder / "c.yaml", [*texts, DEFAULTS.dump()], load)


def tables(rng: random.Random, folder: Path) -> Cases:
    """Mutations of tables."""
    texts = [(ROOT / "paper_tables" / f"{name}.yaml").read_text() for name in ("demo", "table2", "table9")]
    return _files(rng, folder / "t.yaml", texts, lambda path: list(find_table(str(path)).cells()))


def sites(rng: random.Random, folder: Path) -> Cases:
    """Mutations of the site that is shipped, without its comments."""
    lines = (ROOT / "slurm" / "cluster.yaml").read_text().splitlines()
    text = "\n".join(line.partition("#")[0].rstrip() for line in lines if line.partition("#")[0].strip())

    def read(path: Path) -> None:
        site = Site.read(path)
        site.of("tiny"), site.python, site.setup()

    return _files(rng, folder / "s.yaml", [text], read)


def answers(rng: random.Random, folder: Path) -> Cases:
    """What squeue and sacct print, with lines of others; every row that is ours counts, and no index is made up."""
    made = [submission(f"seval-{k:012x}", *[[f"{k}{i}"] for i in range(3)]) for k in range(2)]

    def row(number: str) -> str:
        return (
            f"{rng.choice(made).name}|{number}|{rng.choice(STATES)}|{rng.choice(('None', '0:0', '1:0', '0:9', 'a:b'))}"
        )

    def attempt(text: str) -> str | None:
        queue = Queue(1, 1)
        queue.ask = lambda *command: text
        for name, index in queue.jobs(made):
            if not any(name == each.name and 0 <= index < len(each.elements) for each in made):
                return f"an element that was not submitted: {name}, {index}"
        return None

    while True:
        numbers = (
            "7_0",
            "7_1",
            "8_2",
            "8",
            "7_[0-2]",
            "7_[0-2%1]",
            "7_[0-99999999999]",
            "8_[2,0]",
            "7_0+1",
            "7_-1",
            "_",
        )
        lines = [row(rng.choice(numbers)) for _ in range(rng.randrange(5))]
        lines += rng.choices(("", "CLUSTER: c1", "Slurm accounting is being upgraded", "|||", value(rng)), k=1)
        text = "\n".join(lines) + "\n"
        text = mutated(rng, text) if rng.random() < 0.5 else text
        yield text, partial(attempt, text)


def ledgers(rng: random.Random, folder: Path) -> Cases:
    """Ledgers with a field of another type, or mutated as text, and their use by status.py and submit.py."""
    queue = Queue(1, 1)
    queue.ask = lambda *command: "seval-0a0a0a0a0a0a|7_0|RUNNING|None\n"
    more = {"needs": {"2" * 10: "1" * 10}, "created": 1e9}
    whole: Submission = submission("seval-0a0a0a0a0a0a", ["1" * 10], ["2" * 10], **more)
    path = whole.write(folder)
    content = json.loads(path.read_text())

    def attempt(write: Callable[[], object]) -> None:
        write()
        for each in submissions(folder):
            [each.labels[id] for element in each.elements for id in element if id in each.settings]
        latest(folder, queue, ["1" * 10, "2" * 10])

    while True:
        if rng.random() < 0.4:
            text = mutated(rng, json.dumps(content))
            yield text, partial(attempt, partial(path.write_bytes, text.encode("utf-8", "surrogatepass")))
        else:  # whole, but of other types
            odd = rng.choice((None, 3, -1.5, 1e308, True, "x", [], [[]], [[[]]], {}, {"a": 1}, [None], "9" * 5000))
            name = rng.choice([each.name for each in fields(whole)])
            other = replace(whole, **{name: odd})
            yield f"{name} is {odd!r}", partial(attempt, partial(write_ledger, other, path))


def write_ledger(made: Submission, path: Path) -> None:
    """Where the name is odd too, the file has that of the path."""
    if (other := made.write(path.parent)) != path:
        other.rename(path)


THEMES = {each.__name__: each for each in (overrides, policies, configurations, tables, sites, answers, ledgers)}
COUNTS = {"overrides": 2400, "policies": 2400, "answers": 1800}


def run(words: list[str]) -> int:
    """In a process of the zygote: so many cases of a theme, from a named seed."""
    theme, count, seed = words
    with tempfile.TemporaryDirectory() as folder:
        cases = THEMES[theme](random.Random(f"{theme} {seed}"), Path(folder))
        return explore((case for case, _ in zip(cases, range(int(count)), strict=False)), (ValueError, SlurmError))


def fuzz(theme: str, lab: Lab) -> Row:
    """In portions, so that a crash costs one of them."""
    row = Row(f"grammar fuzz: {theme}")
    count = COUNTS.get(theme, 600) if lab.full else 120
    for portion in range(0, count, 60):
        judged(lab, row, "tests.torture.fuzz:run", theme, 60, portion)
    return row


def named(theme: str) -> Callable[[Lab], Row]:
    campaign = partial(fuzz, theme)
    campaign.__module__, campaign.__name__ = __name__, theme
    return campaign


CAMPAIGNS = tuple(map(named, THEMES))
