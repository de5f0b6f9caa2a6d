"""What a campaign found: how much was tried, how much went as promised, and why the rest did not."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field

#: What is not as promised and stays so: (start of the campaign, pattern of the reason, why).
KNOWN: tuple[tuple[str, str, str], ...] = ()


@dataclass
class Row:
    """One campaign; `judge` takes one case and what was wrong with it."""

    campaign: str
    tried: int = 0
    failed: int = 0
    fired: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    examples: dict[str, str] = field(default_factory=dict)  # of each reason

    def judge(self, case: object, problems: list[str], fired: bool = True) -> None:
        """One reason counts for a case: the first."""
        self.tried += 1
        self.fired += fired
        if problems:
            self.failed += 1
            reason = shape(problems[0])
            self.reasons[reason] = self.reasons.get(reason, 0) + 1
            self.examples.setdefault(reason, f"{str(case)[:300]}: {'; '.join(problems)[:600]}")

    def plain(self) -> dict[str, object]:
        """The arguments that make this row."""
        return asdict(self)

    def unknown(self) -> list[str]:
        """Examples of the reasons that are not in KNOWN."""
        return [self.examples[reason] for reason in self.reasons if not known(self.campaign, reason)]


def shape(reason: str) -> str:
    """A reason without what differs from case to case: numbers, paths, and what stands in parentheses."""
    reason = re.sub(r"\s*\(.*\)", "", reason)
    return re.sub(r"(/[\w.+-]+)+/?", "PATH", re.sub(r"\b0x[0-9a-f]+|\b\d[\d.,]*\b", "N", reason))[:160]


def known(campaign: str, reason: str) -> str:
    """Why a reason is accepted; empty if it is not."""
    return next((why for where, what, why in KNOWN if campaign.startswith(where) and re.search(what, reason)), "")


def page(rows: list[Row]) -> str:
    """A table in Markdown."""
    lines = ["| campaign | tried | as promised | not |", "|---|---|---|---|"]
    for row in rows:
        fired = f" ({row.fired} fired)" if row.fired != row.tried else ""
        words = [
            f"{count}: {reason}" + (f" (known: {why})" if (why := known(row.campaign, reason)) else "")
            for reason, count in sorted(row.reasons.items(), key=lambda each: -each[1])[:5]
        ]
        left = "; ".join(words).replace("|", "\\|")
        cells = (row.campaign, f"{row.tried}{fired}", row.tried - row.failed, f"{row.failed} {left}".strip())
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)
