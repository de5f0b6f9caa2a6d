"""The ids of the runs in a folder, and the one that is meant by its beginning."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from seval.errors import ConfigError
from seval.files import told
from seval.keys import some
from seval.text import short

_ID = re.compile("[0-9a-f]{10}")


def ids(output: Path) -> list[str]:
    """Of all runs in a folder, in order; none where there is no such folder. Raises `OSError`."""
    try:
        return sorted(name for name in os.listdir(output) if _ID.fullmatch(name))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise told(error, "read", output) from None


def whole(words: Sequence[str], output: Path) -> list[str]:
    """The ids that are meant, each by a beginning that no other run has, or by its folder; each once.

    Raises `ConfigError` for a word that is the beginning of no id or of several.
    """
    known, found = ids(output), []
    for word in words:
        path = Path(word)
        inside = len(path.parts) > 1 and path.parent.resolve() == output.resolve()
        begin = (path.name if inside else word).lower()
        meant = [id for id in known if id.startswith(begin)] if begin else []
        if len(meant) > 1:
            raise ConfigError(f"{short(word)} is the beginning of {len(meant)} ids, {some(meant)}; write more of it")
        if not meant:
            there = f"there are {len(known)} runs, such as {known[0]}" if known else "there is none"
            raise ConfigError(f"no run in {output} has an id that begins with {short(word)}; {there}")
        found += meant
    return list(dict.fromkeys(found))
