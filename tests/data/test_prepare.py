"""The command that prepares sets, checks them and draws them."""

from __future__ import annotations

import os
import subprocess
import sys

import h5py
import pytest

from repro import prepare as cli
from seval.data import hdf5
from tests.settings import ROOT
from tests.standins import write_small_cifar10


def test_the_command_prepares_once_and_heals(tmp_path, tiny, capsys):
    write_small_cifar10(tmp_path / "raw", tiny)
    command, path = ["cifar10", "--root", str(tmp_path)], tmp_path / "cifar10.h5"
    assert cli.main([*command, "--verify"]) == 2
    assert capsys.readouterr().err.startswith(f"error: no file {path}; write it with")
    assert cli.main(command) == 0
    out = capsys.readouterr().out
    assert f"{path} is ready" in out and "train: 200 images of 10 classes, 20 to 20 per class" in out
    assert "these raw files are not the published ones" in out
    written = path.read_bytes()
    assert cli.main(command) == 0 and "there already and valid; nothing to do" in capsys.readouterr().out
    path.write_bytes(written[:5000])
    assert cli.main([*command, "--verify"]) == 2 and path.stat().st_size == 5000
    assert cli.main(command) == 0 and path.read_bytes() == written
    assert "writing it again" in capsys.readouterr().out
    path.write_bytes(b"")
    (tmp_path / "raw/cifar-10-batches-py/batches.meta").unlink()
    assert cli.main([*command, "--force"]) == 2 and path.read_bytes() == b""
    assert "has no batches.meta" in capsys.readouterr().err


def test_help_has_examples(capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["--help"])
    assert caught.value.code == 0 and "python repro/prepare.py cifar10 --download" in capsys.readouterr().out


def test_a_class_name_is_drawn_as_it_is_written(tmp_path):
    """Not as a formula of matplotlib, which this would not be."""
    images = hdf5.read(ROOT / "data" / "tiny.h5")
    hdf5.write(tmp_path / "tiny.h5", images._replace(class_names=("$a_{$", "\u0394 <b>", *images.class_names[2:])))
    assert cli.main(["tiny", "--root", str(tmp_path), "--show", str(tmp_path / "sheet.png")]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"tiny.h5", "sheet.png"}


def test_the_contact_sheet(tmp_path, capsys):
    assert cli.main(["tiny", "--root", str(ROOT / "data"), "--show", str(tmp_path / "sheet.png")]) == 0
    assert (tmp_path / "sheet.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert "sheet.png" in capsys.readouterr().out


# Raises Ctrl-C at the N-th event of Python that can be heard, such as an import or an opened file.
HEARING = """
import runpy, signal, sys
at, count = int(sys.argv.pop(1)), 0
def hear(event, arguments):
    global count
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        count += 1
        if count == at:
            signal.raise_signal(signal.SIGINT)
sys.addaudithook(hear)
del sys.argv[0]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    at or print(count, file=sys.stderr)
"""


@pytest.mark.parametrize("shares", [(0.0, 0.7, 0.995), pytest.param(range(60), marks=pytest.mark.slow)])
def test_ctrl_c_at_any_moment_is_one_line_and_130(shares, tmp_path, tiny):
    write_small_cifar10(tmp_path / "raw", tiny)

    def run(at: int) -> subprocess.CompletedProcess:
        words = [str(ROOT / "repro/prepare.py"), "cifar10", "--root", str(tmp_path), "--raw", str(tmp_path / "raw")]
        return subprocess.run([sys.executable, "-c", HEARING, str(at), *words], capture_output=True, text=True)

    events = int(run(0).stderr)
    whole = (tmp_path / "cifar10.h5").read_bytes()
    for share in shares:
        (tmp_path / "cifar10.h5").unlink(missing_ok=True)
        done = run(1 + int(events * (share if isinstance(share, float) else 0.9 + share / 601)))
        assert done.returncode == 130, done
        assert done.stderr == "interrupted\n"
        left = [path.name for path in tmp_path.iterdir() if path.name != "raw"]
        assert left in ([], ["cifar10.h5"]) and all((tmp_path / name).read_bytes() == whole for name in left)
    run(events + 1000)
    assert (tmp_path / "cifar10.h5").read_bytes() == whole


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "the following arguments are required: NAME"),
        (["cifra10"], "no file data/cifra10.h5 (did you mean cifar10?); data holds "),
        (["a/cifar10"], "argument NAME: 'a/cifar10' is the name of no set, but of a file; --root names the folder"),
        (["cifar10", "--rot", "x"], "unrecognized arguments: --rot x"),
        (["cifar10", "--raw"], "argument --raw: expected one argument"),
    ],
)
def test_a_wrong_command_line_is_one_line(words, message, capsys):
    assert cli.main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {message}") and error.count("\n") == 1


def test_only_what_is_damaged_is_written_again(tmp_path, tiny, capsys, monkeypatch):
    """Not another set, not a file of a later version, and not one that cannot be read now."""
    write_small_cifar10(tmp_path / "raw", tiny)
    path, command = tmp_path / "cifar10.h5", ["cifar10", "--root", str(tmp_path)]
    hdf5.write(path, tiny)
    before = path.read_bytes()
    assert cli.main(command) == 2 and path.read_bytes() == before
    assert f"error: {path} holds the set 'tiny', not 'cifar10'; move it away and run" in capsys.readouterr().err
    with h5py.File(path, "r+") as file:
        file.attrs["format"] = hdf5.encode_attribute(2)
    before = path.read_bytes()
    assert cli.main(command) == 2 and path.read_bytes() == before
    assert capsys.readouterr().err.endswith(f"prepare.py cifar10 --root {tmp_path} --force\n")
    for error in (PermissionError(13, "Permission denied"), MemoryError()):

        def fails(*_, error=error):
            raise error

        monkeypatch.setattr(hdf5, "opened", fails)
        assert cli.main(command) == 2 and path.read_bytes() == before
        assert capsys.readouterr().err.startswith("error: ")
    monkeypatch.undo()
    assert cli.main([*command, "--force"]) == 0 and hdf5.verify(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_folder_that_may_not_be_written(tmp_path, tiny, capsys):
    write_small_cifar10(tmp_path / "raw", tiny)
    (tmp_path / "root").mkdir(mode=0o555)
    assert cli.main(["cifar10", "--raw", str(tmp_path / "raw"), "--root", str(tmp_path / "root")]) == 2
    assert capsys.readouterr().err == f"error: cannot write {tmp_path}/root/cifar10.h5: Permission denied\n"


def test_a_folder_that_cannot_be_made(tmp_path, tiny, capsys):
    write_small_cifar10(tmp_path / "raw", tiny)
    (tmp_path / "root").touch()
    assert cli.main(["cifar10", "--raw", str(tmp_path / "raw"), "--root", str(tmp_path / "root")]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: cannot write {tmp_path}/root/cifar10.h5: ") and error.count("\n") == 1
