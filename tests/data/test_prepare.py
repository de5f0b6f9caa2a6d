"""The command that prepares sets, checks them and draws them."""

from __future__ import annotations

import pytest

from repro import prepare as cli
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


def test_the_contact_sheet(tmp_path, capsys):
    assert cli.main(["tiny", "--root", str(ROOT / "data"), "--show", str(tmp_path / "sheet.png")]) == 0
    assert (tmp_path / "sheet.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert "sheet.png" in capsys.readouterr().out
