"""Claims that are held elsewhere, or whose holder is dead."""

from __future__ import annotations

import json
import os
import signal
import time

import pytest

from seval import claim as module
from seval.claim import claim, holder
from seval.errors import RunBusy
from tests.claimants import foreign, names, start

HOLD = """
from seval.claim import claim
with claim(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_killed_holder_on_this_host_is_followed_at_once(tmp_path):
    (tmp_path / ".checkpoint.pt.123").write_bytes(b"half")
    child = start(HOLD, tmp_path)
    assert child.stdout.readline() == "held\n"
    assert names(tmp_path) == ["claim.1"] and holder(tmp_path)["pid"] == child.pid
    with pytest.raises(RunBusy, match=f"is held by process {child.pid} on "), claim(tmp_path):
        pass
    os.utime(tmp_path / "claim.1", (0, 0))  # here the process itself counts, not its signs of life
    assert holder(tmp_path)["pid"] == child.pid
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # dead, though its parent does not know yet
    assert holder(tmp_path) is None
    with claim(tmp_path) as held:
        assert held.number == 2 and names(tmp_path) == ["claim.2"]
    child.communicate()


@pytest.mark.parametrize("hours", [-100, 0, 100])
def test_another_host_is_honored_until_it_gives_no_sign_of_life_whatever_the_clock_here(hours, tmp_path, monkeypatch):
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 3600 * hours)
    path = foreign(tmp_path)
    for age, alive in ((0, True), (module.STALE - 5, True), (module.STALE + 5, False)):
        os.utime(path, (now - age,) * 2)
        assert (holder(tmp_path) is not None) == alive
    with claim(tmp_path) as held:
        assert held.number == 2
    assert holder(tmp_path) is None and names(tmp_path) == ["claim.2"]


@pytest.mark.parametrize("change", [{"boot": "x"}, {"namespace": 1}, {"host": "other"}, {"uid": -1}])
def test_process_numbers_of_elsewhere_mean_nothing(change, tmp_path):
    foreign(tmp_path, **(module._self(tmp_path) | {"pid": 2**22 + 1} | change))
    assert holder(tmp_path) is not None
    foreign(tmp_path, **(module._self(tmp_path) | {"pid": 2**22 + 1}))
    assert holder(tmp_path) is None
    foreign(tmp_path, **(module._self(tmp_path) | {"started": "1"}))  # the number is another process's now
    assert holder(tmp_path) is None


@pytest.mark.parametrize(
    ("job", "restarts", "alive"),
    [("5", None, True), ("5", "1", True), ("5", "many", True), ("5", "2", False), ("6", "2", True)],
)
def test_a_job_that_slurm_has_started_again_follows_itself_at_once(job, restarts, alive, tmp_path, monkeypatch):
    foreign(tmp_path, SLURM_JOB_ID="5", SLURM_CLUSTER_NAME="c", SLURM_RESTART_COUNT="1")
    for key, value in (("SLURM_JOB_ID", job), ("SLURM_CLUSTER_NAME", "c"), ("SLURM_RESTART_COUNT", restarts)):
        monkeypatch.setenv(key, value) if value else monkeypatch.delenv(key, raising=False)
    if alive:
        with pytest.raises(RunBusy, match="process .* on other, SLURM job 5"), claim(tmp_path):
            pass
    else:
        with claim(tmp_path) as held:
            assert held.number == 2


def test_a_suspended_holder_of_another_host_that_wakes_up_writes_no_more(tmp_path):
    """A real process, stopped; what it says of itself is altered so that it seems to be elsewhere."""
    program = HOLD.replace("claim(Path(sys.argv[1])):", "claim(Path(sys.argv[1])) as held:").replace(
        "time.sleep(60)", "sys.stdin.readline()\n    held.check()\n    print('written', flush=True)"
    )
    child = start(program, tmp_path)
    child.stdout.readline()
    child.send_signal(signal.SIGSTOP)
    said = json.loads((tmp_path / "claim.1").read_text())
    foreign(tmp_path, age=1000, **(said | {"host": "other"}))
    with claim(tmp_path) as held:
        child.send_signal(signal.SIGCONT)
        out, err = child.communicate("\n")
        assert "written" not in out and child.returncode == 1 and "was taken over by" in err
        held.check()
