"""One way to write each kind of value; anything else is one bounded line, whatever it is."""

from __future__ import annotations

import random
import time

import pytest

from seval.config import load
from seval.errors import ConfigError
from seval.keys import STANDARD, pairs, value_of

TEXTS = [
    ("SEED", "79", 79),
    ("GPU_ID", "-1", -1),
    ("SEED", "+5", 5),
    ("SOLVER.BASE_LR", "1e-3", 0.001),
    ("SOLVER.BASE_LR", "3", 3.0),
    ("SOLVER.BASE_LR", ".5", 0.5),
    ("SOLVER.BASE_LR", 1, 1.0),
    ("MODEL.FROZEN", "True", True),
    ("MODEL.FROZEN", "false", False),
    ("MEMO", "no", "no"),
    ("MEMO", "010", "010"),
    ("MEMO", 5, "5"),
    ("SOLVER.STEPS", "[1, 2]", [1, 2]),
    ("SOLVER.STEPS", (1, 2), [1, 2]),
    ("PREREQUISITE", "['SEED', 1]", ["SEED", 1]),
]
REFUSED = [
    *(("SEED", text) for text in ("010", "1_000", "0x10", "1e3", "1.0", "1:30", "٣", "", "--1", "9" * 400, "True")),
    *(("SEED", value) for value in (1.0, True, None, [1], {"A": 1})),
    *(("SOLVER.BASE_LR", text) for text in ("010", "1_0.5", "0x1p3", "nan", "inf", "1j", "True", "1,5", "e5", ".")),
    *(("MODEL.FROZEN", value) for value in ("yes", "no", "on", "1", "", 1, 0, None)),
    *(("MEMO", value) for value in (True, 1.5, None, ["a"])),  # how a 1.5 was written is not known any more
    *(("SOLVER.STEPS", value) for value in ("1, 2 x", "[1", "5", "{1}", 5)),
]


@pytest.mark.parametrize(("key", "given", "meant"), TEXTS)
def test_what_a_value_means(key, given, meant):
    value = value_of(key, given, "here")
    assert value == meant and type(value) is type(meant)


@pytest.mark.parametrize(("key", "given"), REFUSED)
def test_what_is_not_written_in_the_one_way_is_refused(key, given):
    with pytest.raises(ConfigError, match=f"^{key} is .* in here, but must be an? ") as caught:
        value_of(key, given, "here")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "words",
    ["SEED 1", "SEED=1", "--SEED 1", "--seed 1", "--seed=1", "seed 1"],
)
def test_a_pair_may_be_written_in_several_ways(words):
    assert pairs(words.split()) == ["SEED", "1"]


def test_pairs_keep_their_order_and_their_values():
    words = "solver.base_lr=1e-3 MEMO a=b GPU_ID -1 SEED 1 --SEED 2 HEADS.LINEAR.POLICY".split() + ["a | b(x=1)"]
    flat = ["SOLVER.BASE_LR", "1e-3", "MEMO", "a=b", "GPU_ID", "-1", "SEED", "1", "SEED", "2"]
    assert pairs(words) == [*flat, "HEADS.LINEAR.POLICY", "a | b(x=1)"]


@pytest.mark.parametrize(
    ("words", "say"),
    [
        ("SEED", "'SEED' has no value; keys are set by KEY VALUE pairs, such as SEED 1"),
        ("SEED 1 GPU_ID", "'GPU_ID' has no value"),
        ("--dryrun 1", "unknown option '--dryrun'; --help lists the options"),
        ("SEED 1 configs/tiny/fixmatch.yaml", "write --config-file before the name of a file"),
    ],
)
def test_words_that_are_no_pairs_say_what_to_write(words, say):
    with pytest.raises(ConfigError, match=say):
        pairs(words.split())


#: What strangers, scripts and attackers write.
HOSTILE = [
    ("SOLVER.STEPS", "{[1]: 2}"),
    ("SOLVER.STEPS", "[" * 3000),
    ("SOLVER.STEPS", f"[{'9' * 400}]"),
    ("SOLVER.STEPS", "[-1]"),
    ("SEED", "-" * 3000 + "1"),
    ("SEED", "9" * 5000),
    ("PREREQUISITE", "[['a'], 1]"),
    ("PREREQUISITE", "[{}, 1]"),
    ("PREREQUISITE", "['SEED', 'x']"),
    ("PREREQUISITE", "['SEEED', 1]"),
    ("PREREQUISITE", f"[{'1, ' * 6000}]"),
    ("DATASET.TINY.IMB_FACTOR_UL", 10**400),
    ("DATASET.TINY.IMB_FACTOR_UL", "1e400"),
    ("SEED", 10**5000),
    ("SOLVER.BASE_LR", "1e300"),  # finite here, but not as a float32
    ("SOLVER.BASE_LR", "-1e300"),
    ("SOLVER.MOMENTUM", float("nan")),
    ("SOLVER.MAX_ITER", 10**30),
    ("RUNTIME.THREADS", "999999999"),
    ("MODEL.DEPTH", "600000004"),
    ("MODEL.WIDTH", "1000000"),
    ("SOLVER.IMS_PER_BATCH", "400000000"),
    ("DATASET.RESOLUTION", "100000"),
    ("GPU_ID", "-5"),
    ("OUTPUT_DIR", "a\0b"),
    *((key, "a\nb") for key in ("OUTPUT_DIR", "DATASET.ROOT", "MODEL.WEIGHTS", "CURRICULUM")),
    ("x" * 1_000_000, "1"),
    ("SEED", "x" * 1_000_000),
    ("HEADS.LINEAR.POLICY", "threshold({[]: 1})"),
    ("ALGORITHM.NAME", f"mixmatch(alpha={'9' * 400})"),
    ("DATASET", "1"),
]


@pytest.mark.parametrize(("key", "value"), HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_override_is_one_short_line_at_once(key, value):
    begun = time.monotonic()
    with pytest.raises(ConfigError) as caught:
        load((), [key, value])
    assert str(caught.value).isprintable() and len(str(caught.value)) <= 500
    assert time.monotonic() - begun < 5


def test_lists_that_repeat_each_other_are_one_short_line():
    bomb: list = [1]
    for _ in range(12):
        bomb = [bomb] * 9
    for key in ("SOLVER.STEPS", "PREREQUISITE", "SEED", "MEMO"):
        with pytest.raises(ConfigError) as caught:
            load((), [key, bomb])
        assert len(str(caught.value)) <= 500


def test_a_chain_of_runs_without_end_is_refused():
    chain: list = []
    for _ in range(200):
        chain = ["PREREQUISITE", chain]
    with pytest.raises(ConfigError, match="a chain of more than 50 runs"):
        load((), ["PREREQUISITE", chain])


PARTS = [*"[](){}'\",:|=-+._ \t\n\\#&*!%@", "\0", "\x1b[31m", "é", "\ud800", "0x10", "1_0", "010", "1e999", "nan",
         "None", "True", "yes", "threshold", "one_hot", "tau", "SEED", "lambda", "not ", "**", "9" * 400]  # fmt: skip


def test_random_overrides_are_a_configuration_or_a_short_line():
    rng, keys = random.Random(0), [*STANDARD, "SOLVER", "NOT.A.KEY", ""]
    refused = 0
    for _ in range(3000):
        value = "".join(rng.choices(PARTS, k=rng.randint(0, 12)))
        try:
            load((), [rng.choice(keys), value])
        except ConfigError as error:
            refused += 1
            assert str(error).isprintable() and len(str(error)) <= 500, value
    assert refused > 1500
