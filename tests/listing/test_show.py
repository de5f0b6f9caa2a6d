"""One run, two side by side, and where a log ends."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from repro.listing.card import bar
from repro.listing.logs import last_lines, log_of
from seval.errors import ConfigError
from seval.ids import whole
from seval.record import read_record
from tests.listing.conftest import PROTOCOLS, evaluations, started

A, B, C = "aaaaaaaaaa", "ababababab", "cccccccccc"


def test_a_card_has_every_part_of_a_trained_run(trained, call):
    folder, ids = trained
    id, before = ids["fixmatch_seval_load"], ids["fixmatch_seval_load, before"]
    code, out, err = call("--output-dir", folder, "show", id[:5])
    record = read_record(folder / id / "record.json")
    assert (code, err) == (0, "") and re.search(rf"^needs +{before}  .*\(done\)$", out, re.M)
    for key, value in record["delta"].items():
        if key != "PREREQUISITE":
            shown = value if isinstance(value, str) else json.dumps(value)
            assert re.search(rf'^{key} +"?{re.escape(shown)}', out, re.M), key
    for split, about in record["splits"].items():
        assert re.search(rf"^{split} +{sum(about['class_counts'])} ", out, re.M)
    assert all(protocol in out for protocol in PROTOCOLS)
    for offset, values in record["results"]["test"]["ema"].items():
        numbers = " +".join(f"{100 * values['top1'][protocol]:.2f}" for protocol in ("median20", "mean20", "last"))
        assert re.search(rf"^test +ema +{offset} +top1 +{numbers} ", out, re.M)
    assert len(re.findall(r"^ *\d+ +\d+ labels +[█·]{40} +[\d.]+$", out, re.M)) == 10
    assert re.search(rf"^needed by +{id}  ", call("--output-dir", folder, "show", before)[1], re.M)


def test_several_cards_follow_each_other(trained, call):
    folder, ids = trained
    out = call("--output-dir", folder, "show", *ids.values())[1]
    assert [id for id in re.findall(r"^([0-9a-f]{10})  ", out, re.M) if id in ids.values()] == list(ids.values())


def test_a_bar_is_as_long_as_its_share():
    assert [bar(share).count("█") for share in (None, 0.0, 0.5, 1.0, 7.0, -1)] == [0, 0, 20, 40, 40, 0]


def test_many_classes_are_one_sign_each(write, call):
    recall = [index / 199 for index in range(199)] + [None]
    write(A, per_class={"none": {"recall": recall, "precision": recall}})
    lines = re.findall(r"^ +(\d+) to (\d+) +([▁▂▃▄▅▆▇█ ]{50})  mean ([\d.]+)$", call("show", A)[1], re.M)
    assert [line[:2] for line in lines] == [("0", "49"), ("50", "99"), ("100", "149"), ("150", "199")]
    assert lines[0][2][0] == "▁" and lines[3][2][48:] == "█ " and lines[0][3] == "12.3"


def test_the_difference_of_two_runs(write, call):
    write(A, 0.5, SEED=1, SOLVER_BASE_LR=0.1)
    write(B, 0.625, SEED=1, method="mixmatch", DATASET_NAME="cifar10")
    code, out, err = call("diff", "aa", "ab")
    assert (code, err) == (0, "")
    assert re.search(r"^SOLVER.BASE_LR +0.1 +0.03$", out, re.M) and not re.search("^SEED", out, re.M)
    assert re.search(r"^none +top1 +50.00 +62.50 +\+12.50$", out, re.M)
    assert re.search(r"^DATASET.NAME +tiny +cifar10$", out, re.M)
    assert re.search(r"^DATASET.TINY.NUM_LABELED_HEAD +1500 +—$", out, re.M)
    assert re.search(r"^none +top1 +62.50 +50.00 +-12.50$", call("diff", "ab", "aa")[1], re.M)


def test_a_difference_to_a_run_without_a_record(write, call, tmp_path):
    write(A, 0.5)
    started(tmp_path / "runs" / B)
    (tmp_path / "runs" / C).mkdir()
    code, out, err = call("diff", A, B)
    assert (code, err) == (0, "") and re.search(r"^none +top1 +50.00 +—$", out, re.M)
    assert "the settings of cccccccccc are not known" in call("diff", A, C)[1]
    assert "neither has a record" in call("diff", B, C)[1]
    code, out, err = call("diff", A, "aaaa")
    assert (code, out) == (2, "") and "two different ones" in err


def test_an_id_is_any_beginning_that_is_clear(write, tmp_path):
    for id in (A, B, C):
        write(id)
    output = Path("runs")
    assert whole(["c", "aa", B], output) == [C, A, B]
    assert whole(["C", "cc", f"runs/{C}/", str(tmp_path / "runs" / C)], output) == [C]
    for word, said in (
        ("a", "the beginning of 2 ids, aaaaaaaaaa, ababababab"),
        ("d", "there are 3 runs"),
        ("", "no run"),
    ):
        with pytest.raises(ConfigError, match=said):
            whole([word], output)
    for word in (f"elsewhere/{C}", "..", ".", "*", "c/", f"{C}0", "\0", "\x1b[2J"):
        if word != "c/":
            with pytest.raises(ConfigError, match="no run in runs"):
                whole([word], output)


def test_the_log_is_found_where_the_launchers_leave_it(tmp_path, write, call):
    folder = write(A)
    assert log_of(folder) is None
    logs = tmp_path / "runs" / "slurm" / "logs"
    logs.mkdir(parents=True)
    (logs / "7_0_log.out").write_text(f"sweep: Plain: run {B}, job 7\nno\n")
    (logs / "8_0_log.out").write_text(f"sweep: Plain: run {A}, job 8\nstep 1\rstep 2\rstep 3\r\n\x1b[2Jdone\n\n")
    assert log_of(folder) == logs / "8_0_log.out"
    assert last_lines(logs / "8_0_log.out") == [f"sweep: Plain: run {A}, job 8", "step 3", "\\x1b[2Jdone"]
    out = call("show", A)[1]
    assert "end of runs/slurm/logs/8_0_log.out\n" in out and "\n  step 3\n" in out and "\x1b" not in out
    own = tmp_path / "runs" / "submitit" / A
    own.mkdir(parents=True)
    (own / "1_0_log.err").write_text("")
    (own / "1_0_log.out").write_bytes(b"x\n" * 100_000 + b"\xff end")
    assert log_of(folder) == own / "1_0_log.out" and last_lines(own / "1_0_log.out", 2) == ["x", "\ufffd end"]


def test_a_card_shows_the_last_evaluations(write, call, tmp_path):
    started(tmp_path / "runs" / A)
    evaluations(tmp_path / "runs" / A, *(number / 100 for number in range(1, 11)))
    out = call("--output-dir", tmp_path / "runs", "show", A)[1]
    assert re.findall(r"^ *(\d+) +2\.\d+ +([\d.]+) ", out, re.M) == [("320", "8.00"), ("360", "9.00"), ("400", "10.00")]
