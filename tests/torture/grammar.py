"""Random text: Python and YAML values, valid and not, and mutations of text that is valid."""

from __future__ import annotations

import random
import string

ODD = (
    "", " ", "None", "True", "nan", "inf", "-inf", "1e999", "0123", "1:30", "0x10", "1_000", "1j", "b'x'", "'", '"',
    "é", "\u202e", "\x1b[31m", "\x00", "\ufeff", "~", "off", "no", "2026-12-01", "&a", "*a", "&a [*a]", "!!python/none",
    "<<", "{[1]: 2}", "{{}: 1}", "[['a'], 1]", "(1, [2])", "...", "lambda: 0", "__import__('os')", "a.b", "f'{1}'",
    "-" * 3000 + "1", "(" * 3000, "[" * 3000 + "]" * 3000, "9" * 400, "9" * 6000, "0." + "1" * 400, "1e-400",
    "x" * 5000,
)  # fmt: skip


def value(rng: random.Random, depth: int = 0) -> str:
    """A Python literal, mostly; YAML reads most of them too."""
    kind = rng.randrange(9 if depth < 3 else 5)
    if kind == 0:
        return str(rng.choice((0, 1, -1, 2, 10, 2**31, -(2**63), 10**18)))
    if kind == 1:
        return repr(rng.choice((0.0, 0.5, -1.5, 1e-9, 1e300, 0.95)))
    if kind == 2:
        return repr("".join(rng.choices(string.printable, k=rng.randrange(8))))
    if kind in (3, 4):
        return rng.choice(ODD)
    inner = [value(rng, depth + 1) for _ in range(rng.randrange(4))]
    if kind == 5:
        return f"({', '.join(inner)},)"
    if kind == 6:
        return "{" + ", ".join(f"{value(rng, depth + 2)}: {each}" for each in inner) + "}"
    return f"[{', '.join(inner)}]"


def mutated(rng: random.Random, text: str) -> str:
    """The text with one to four small changes."""
    for _ in range(rng.randint(1, 4)):
        at, kind = rng.randrange(len(text) + 1), rng.randrange(6)
        end = min(len(text), at + rng.randrange(12))
        if kind == 0:
            text = text[:at] + text[end:]
        elif kind == 1:
            text = text[:at] + rng.choice(string.printable) + text[at:]
        elif kind == 2:
            text = text[:at] + text[at:end] * rng.randint(2, 4) + text[end:]
        elif kind == 3:
            text = text[:at] + value(rng) + text[end:]
        elif kind == 4:
            text = text[:at] + rng.choice("[]{}():,|&*#'\"\n\t- ") + text[at:]
        else:
            lines = text.splitlines(keepends=True)
            rng.shuffle(lines)
            text = "".join(lines)
    return text
