"""The command line of main.py, called as a function."""

from __future__ import annotations

import main


def command(name: str, *more: object, folder: str = "tiny") -> list[str]:
    return ["--config-file", f"configs/{folder}/{name}.yaml", *map(str, more)]


def run(capsys, *args: object) -> tuple[int, str, str]:
    code = main.main([str(arg) for arg in args])
    out, err = capsys.readouterr()
    return code, out, err
