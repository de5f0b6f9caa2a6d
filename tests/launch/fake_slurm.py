"""A SLURM of stubs: programs on PATH that answer from files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from repro.launch.ledger import Submission

STUBS = {
    # Each call is noted, and the environment of the last.
    # `CMD.plan` holds what the next calls shall do, a line each: ok, fail TEXT, hang, or lost TEXT.
    "begin": """\
cd {folder}; cmd=${{0##*/}}; echo "$cmd $*" >>calls; cat /proc/$$/environ >$cmd.environment; plan=ok
if [ -s $cmd.plan ]; then read -r plan text <$cmd.plan; [ $plan = always ] || sed -i 1d $cmd.plan; fi
case $plan in hang) exec sleep 30;; fail|always) echo "$text" >&2; exit 1;; esac
names() {{ for word in "$@"; do case $word in --name=*) echo "${{word#--name=}}";; esac; done; }}
""",
    "squeue": 'awk -F\'|\' -v names="$(names "$@")" \'index("," names ",", "," $1 ",")\' queue\n',
    "sacct": 'awk -F\'|\' -v names="$(names "$@")" \'index("," names ",", "," $1 ",")\' accounts\n',
    "scontrol": "cat config\n",
    "scancel": """\
for word in "$@"; do case $word in
--name=*) sed -i "/^${word#--name=}|/d" queue;; -*) ;; *) sed -i "/|$word|/d" queue;; esac; done
""",
    "sbatch": """\
job=$(($(cat last) + 1)); echo $job >last; cp "$1" $job.sh
name=$(sed -n 's/^#SBATCH --job-name=//p' "$1"); last=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\).*/\\1/p' "$1")
reason=Priority; grep -q '^#SBATCH --dependency' "$1" && reason=Dependency
if [ -z "$last" ]; then echo "$name|$job|PENDING|$reason" >>queue
else for k in $(seq 0 $last); do echo "$name|${job}_$k|PENDING|$reason"; done >>queue; fi
if [ $plan = lost ]; then echo "$text" >&2; exit 1; fi
echo "Submitted batch job $job"
""",
    "srun": "",
}


class Fake:
    """A SLURM of stubs on PATH, with its queue, its accounting, and all that was asked of it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.bin = folder, folder / "bin"
        self.bin.mkdir(parents=True)
        for name in ("queue", "accounts", "calls", "config"):
            (folder / name).touch()
        (folder / "last").write_text("100")
        for name in STUBS:
            self.stub(name)

    def stub(self, name: str) -> None:
        if name != "begin":
            path = self.bin / name
            path.write_text("#!/bin/bash\n" + STUBS["begin"].format(folder=self.folder) + STUBS[name])
            path.chmod(0o755)

    def says(self, name: str, *lines: str) -> None:
        """From now on it prints these lines, whatever it is asked."""
        (self.folder / f"{name}.lines").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        (self.bin / name).write_text(f"#!/bin/bash\ncat {self.folder}/{name}.lines\n")

    def remove(self, name: str) -> None:
        (self.bin / name).unlink()

    def plan(self, name: str, *lines: str) -> None:
        (self.folder / f"{name}.plan").write_text("".join(line + "\n" for line in lines))

    def calls(self, name: str) -> list[str]:
        return [line for line in (self.folder / "calls").read_text().splitlines() if line.startswith(f"{name} ")]

    def queue(self) -> dict[str, list[str]]:
        """By element, [name, state, reason]."""
        rows = (line.split("|") for line in (self.folder / "queue").read_text().splitlines())
        return {id: [name, state, reason] for name, id, state, reason in rows}

    def put(self, rows: Mapping[str, list[str]]) -> None:
        (self.folder / "queue").write_text(
            "".join(f"{name}|{id}|{state}|{reason}\n" for id, (name, state, reason) in rows.items())
        )

    def account(self, name: str, id: str, state: str, code: str = "0:0") -> None:
        with (self.folder / "accounts").open("a") as file:
            file.write(f"{name}|{id}|{state}|{code}\n")

    def end(self, id: str, state: str = "", code: str = "0:0", *, accounted: bool = True) -> None:
        """An element leaves the queue; accounting says how it ended, unless `state` is empty."""
        rows = self.queue()
        name = rows.pop(id)[0]
        self.put(rows)
        if state and accounted:
            self.account(name, id, state, code)

    def become(self, id: str, state: str, reason: str = "None") -> None:
        rows = self.queue()
        rows[id][1:] = [state, reason]
        self.put(rows)

    def options(self, job: str) -> dict[str, str]:
        """What a submitted script asks for."""
        found = re.findall(r"^#SBATCH --([a-z-]+)(?:=(.*))?$", (self.folder / f"{job}.sh").read_text(), re.MULTILINE)
        assert len({key for key, _ in found}) == len(found), "an option is given twice"
        return {key: value.strip("'") for key, value in found}

    def jobs(self) -> list[str]:
        return [str(number) for number in range(101, int((self.folder / "last").read_text()) + 1)]


def submission(name: str, *groups: list[str], **more: object) -> Submission:
    needs = more.pop("needs", {})
    ids = [id for group in groups for id in group]
    return Submission(
        name,
        list(groups),
        {id: [] for id in ids},
        {id: f"label of {id}" for id in ids},
        needs,
        minutes=60,
        memory_gb=4,
        **more,
    )
