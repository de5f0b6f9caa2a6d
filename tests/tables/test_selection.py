"""What a command line is about: the same folder and the same runs in all scripts, and nothing given is ignored."""

from __future__ import annotations

from pathlib import Path

import pytest

from repro import aggregate, status, submit
from repro.tables.selection import select
from seval.errors import ConfigError
from seval.run import Run
from tests.tables.conftest import TABLE, write_record

PLAIN = ["--config", "configs/small/plain.yaml"]
SCRIPTS = {
    "submit": (submit, ["--cluster", "debug"]),
    "status": (status, []),
    "aggregate": (aggregate, []),
}


def asked(*words: str):
    return select(status.parse([*words]))


def test_pairs_are_written_as_for_main(folder: Path) -> None:
    (plain,) = asked(*PLAIN, "SEED", "3", "MEMO", "été").runs()
    for words in (
        ["SEED=3", "MEMO=été"],
        ["seed", "3", "memo", "été"],
        ["MEMO", "\udcc3\udca9t\udcc3\udca9", "SEED=3"],
    ):
        assert list(asked(*PLAIN, *words).runs()) == [plain], words


def test_the_folder_of_the_runs_has_one_meaning(folder: Path) -> None:
    (folder / "configs/small/own.yaml").write_text("{_BASE_: plain.yaml, OUTPUT_DIR: own}", encoding="utf-8")
    own = ["--config", "configs/small/own.yaml"]
    for words, expected in (
        (PLAIN, "runs"),
        ([*PLAIN, "OUTPUT_DIR", "R1"], "R1"),
        ([*PLAIN, "--output-dir", "R1"], "R1"),
        ([*PLAIN, "OUTPUT_DIR", "R1", "--output-dir", "R1/"], "R1"),
        ([*PLAIN, "OUTPUT_DIR", "R0", "OUTPUT_DIR", "R1"], "R1"),  # as main.py takes it
        (own, "own"),
        ([*own, "OUTPUT_DIR", "R1"], "R1"),
        ([*own, "--output-dir", "R1"], "R1"),
        (["--table", "sweep", "--output-dir", "R1"], "R1"),
    ):
        selection = asked(*words)
        folders = {use.run.folder.parent for use in selection.runs().values()}
        assert {selection.output} == folders == {Path(expected)}, words


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize("given", [["OUTPUT_DIR", "R1"], ["--output-dir", "R1"]])
def test_every_script_looks_there(
    folder: Path, name: str, given: list[str], capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def execute(run: Run, stop: object = None) -> None:
        raise AssertionError("it is done")

    monkeypatch.setattr(Run, "execute", execute)
    (run,) = (use.run for use in asked(*PLAIN, "OUTPUT_DIR", "R1", "MEMO", "a").runs().values())
    write_record(run.folder, run.id, 0.5)
    script, more = SCRIPTS[name]
    assert script.main([*PLAIN, "MEMO", "a", *given, *more]) == 0
    out, err = capsys.readouterr()
    assert "plain, seed 0: 50.00" in out and not err
    assert not Path("runs").exists()
    if name == "submit":
        assert script.main([*PLAIN, "MEMO", "a", *more]) == 1, "it is not done in `runs`"


@pytest.mark.parametrize("key", ["GPU_ID", "DATASET.ROOT", "RUNTIME.WORKERS", "PERIODS.CHECKPOINT", "MODEL.WEIGHTS"])
def test_settings_outside_the_identity_reach_the_run(folder: Path, key: str) -> None:
    ((id, use),) = asked(*PLAIN, key, "7").runs().items()
    assert id in asked(*PLAIN).runs()
    node, _, last = f"cfg.{key}".rpartition(".")
    value = use.run
    for part in node.split("."):
        value = getattr(value, part)
    assert str(getattr(value, last)) == "7"


@pytest.mark.parametrize(
    "words, message",
    [
        ([*PLAIN, "OUTPUT_DIR", "R1", "--output-dir", "R2"], "OUTPUT_DIR R1 and --output-dir R2 are two folders"),
        ([*PLAIN, "SEED", "5", "--seeds", "1"], "SEED 5 and --seeds both"),
        ([*PLAIN, "--seeds", "1", "1"], "seeds in the command line must be a list of different whole numbers"),
        ([*PLAIN, "--seeds", "-1"], "seeds in the command line must be"),
        ([*PLAIN, "--rows", "Plain"], "--rows and --columns choose from a table"),
        ([*PLAIN, "MEMO"], "'MEMO' has no value; keys are set by KEY VALUE pairs"),
        ([*PLAIN, "OUTPUT_DIRS", "R1"], "unknown key 'OUTPUT_DIRS'.*mean 'OUTPUT_DIR'"),
        ([*PLAIN, "output_dir", "R1", "--output-dir", "R2"], "OUTPUT_DIR R1 and --output-dir R2 are two folders"),
        ([*PLAIN, "--output-dir", ""], "OUTPUT_DIR is '', but must be a folder"),
        (["--table", "sweep", "OUTPUT_DIR", "R1"], "go with --config.*OUTPUT_DIR R1; .* is --output-dir"),
        (["--table", "sweep", "--output-dir", "R1", "GPU_ID", "1"], "go with --config.*GPU_ID 1$"),
        (["--table", "sweep", "--output-dir", ""], "OUTPUT_DIR is ''"),
        (["--table", "sweep", "--rows", "Plane"], "unknown row: 'Plane'; did you mean 'Plain'"),
        (["--table", "sweep", "one", "--columns", "c", "--rows", "Deep"], "no table here has such a row and such a"),
        (["--all", "--rows", "Plane"], "unknown row: 'Plane'"),
        (["--table", "one", "other/one.yaml"], "have the same name"),
        (["--table", "seed"], "set in .*seed.yaml holds SEED, which .* use the key `seeds`"),
        (["--table", "output"], "set in row 'r' of .*output.yaml holds OUTPUT_DIR, which .* use --output-dir"),
    ],
)
def test_what_would_count_for_nothing_is_refused(folder: Path, words: list[str], message: str) -> None:
    one = "{folder: small, config: plain, columns: {c: }, rows: {r: }}"
    (folder / "other").mkdir()
    for name, text in {
        "paper_tables/one": one,
        "other/one": one,
        "paper_tables/table2": one,
        "paper_tables/seed": one.replace("config:", "set: [SEED, 5], config:"),
        "paper_tables/output": one.replace("{r: }", "{r: {set: [OUTPUT_DIR, R1]}}"),
    }.items():
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        asked(*words)


def test_of_several_tables_only_those_with_the_row_are_asked_for(folder: Path) -> None:
    (folder / "paper_tables/other.yaml").write_text(TABLE.replace("  Deep", "  Deeper"), encoding="utf-8")
    found = asked("--table", "sweep", "other", "sweep", "--rows", "Deep", "Plain").tables
    assert {name: {cell.row for cell in cells} for name, cells in found.items()} == {
        "sweep": {"Deep", "Plain"},
        "other": {"Plain"},
    }
    assert list(asked("--table", "sweep", "other", "--rows", "Deeper").tables) == ["other"]


def test_aggregate_refuses_what_belongs_to_the_other_kind(folder: Path) -> None:
    assert aggregate.main([*PLAIN, "--out", "out"]) == 2
    assert aggregate.main(["--table", "sweep", "--seeds", "1"]) == 2
    assert aggregate.main(["--table", "sweep", "OUTPUT_DIR", "R1"]) == 2 and not Path("out").exists()


def test_aggregate_takes_several_tables(folder: Path, capsys: pytest.CaptureFixture) -> None:
    (folder / "paper_tables/table2.yaml").write_text(TABLE, encoding="utf-8")
    assert aggregate.main(["--table", "sweep", "2", "--strict"]) == 1
    assert "runs of 14 of 16 cells are missing" in capsys.readouterr().err
    assert aggregate.main(["--all"]) == 0
    assert {path.name for path in Path("paper_tables").glob("*.tex")} == {"sweep.tex", "table2.tex"}
