"""Records and checkpoints that other code made: told, and never gone on with unless asked."""

from __future__ import annotations

import itertools

import pytest

import seval.run
from repro.launch.states import by_other_code, counts, states
from seval import record
from seval.errors import Interrupted, OtherCode, RunBusy
from seval.policy.base import Rule
from seval.provenance import code
from seval.run import Run
from tests.command_line import command, run
from tests.settings import SMALL, small


@pytest.fixture
def changed(monkeypatch):
    """After this, the code is another."""
    return lambda: monkeypatch.setattr(seval.run, "code", lambda rules: "f" * 64)


def test_the_hash_is_over_the_sources_and_over_foreign_rules(tmp_path, monkeypatch):
    (tmp_path / "their_rule.py").write_text("from seval.policy.base import Rule\nclass Mine(Rule):\n    x = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    import their_rule

    plain, before = code(), code([their_rule.Mine])
    assert plain == code([Rule]) != before
    (tmp_path / "their_rule.py").write_text("from seval.policy.base import Rule\nclass Mine(Rule):\n    x = 2\n")
    assert code([their_rule.Mine]) != before and code() == plain


def test_a_run_says_what_it_is(tmp_path):
    one = Run(small("fixmatch_seval_load", tmp_path, "SEED", 4))
    assert one.name == "fixmatch_seval_load · tiny · seed 4" and one.name in repr(one)
    assert one.prerequisite().name == "fixmatch_seval_estim · tiny · seed 4"
    assert Run(small("supervised", tmp_path, "METHOD.NAME", "my\nown")).name == "my\\nown · tiny · seed 0"
    one.prerequisite().execute()
    done = one.execute()
    about = record.read_about(one.folder / "run.json")
    assert about["id"] == one.id and about["needs"] == one.prerequisite().id and about["method"] == done["method"]
    assert about["code"] == done["provenance"]["code"] == one.code and about["delta"] == done["delta"]
    (one.folder / "run.json").write_text("{}")
    assert record.read_about(one.folder / "run.json") is None


def test_a_checkpoint_of_other_code_is_resumed_only_where_asked(tmp_path, changed):
    for method in ("supervised", "fixmatch"):
        cfg = small(method, tmp_path)
        polls = itertools.count()
        with pytest.raises(Interrupted):
            Run(cfg).execute(lambda polls=polls: next(polls) == 7)
        if method == "supervised":
            (Run(cfg).folder / "run.json").unlink()  # the checkpoint says it, too
    changed()
    for method in ("supervised", "fixmatch"):
        with pytest.raises(OtherCode, match=r"--resume \(RUNTIME.OTHER_CODE resume\) .* --again .* starts"):
            Run(small(method, tmp_path)).execute()
        assert Run(small(method, tmp_path, "RUNTIME.OTHER_CODE", "resume")).execute()["steps"] == 12


def test_a_record_of_other_code_is_told_and_again_trains_it_anew(tmp_path, capsys, changed):
    words = command("supervised", *SMALL, "OUTPUT_DIR", tmp_path, "RUNTIME.PROGRESS", "lines")
    assert run(capsys, *words)[0] == 0
    folder = next(tmp_path.glob("*/record.json")).parent
    assert "the code here differs" not in run(capsys, *words)[2]
    changed()
    one = Run(small("supervised", tmp_path))
    _, _, err = run(capsys, *words)
    assert "done before on 20" in err and "; the code here differs: --again trains it anew" in err
    found = states([one], tmp_path / "slurm", None)
    assert counts(found) == "1 done (1 of them by other code)" and by_other_code(found) == [one.id]
    for number in (1, 2):
        code, _, err = run(capsys, "--again", *words)
        assert code == 0 and f".old/{one.id}.{number}" in err and ": new, 12 steps" in err
    assert sorted(path.name for path in (tmp_path / ".old").iterdir()) == [f"{one.id}.1", f"{one.id}.2"]
    assert (folder / "record.json").exists() and (tmp_path / ".old" / f"{one.id}.1" / "record.json").exists()
    assert counts(states([one], tmp_path / "slurm", None)) == "1 done"


def test_a_run_at_work_is_not_set_aside(tmp_path):
    one = Run(small("supervised", tmp_path))
    assert one.set_aside() is None
    from seval.claim import claim

    with claim(one.folder), pytest.raises(RunBusy):
        one.set_aside()
