"""What a person sees of a training: a bar on a terminal, one line for each evaluation in a log."""

import sys
import time
from collections.abc import Mapping
from typing import Any, Self

from tqdm import tqdm


class Progress:
    """Shows the steps of the run called `name` on standard error, as `kind` says: auto, bar, lines or off.

    auto is a bar on a terminal, and lines elsewhere. The accuracies are those of the averaged network on the test set.
    """

    def __init__(self, name: str, begun: str, start: int, last: int, kind: str) -> None:
        self.name, self.start, self.last = name, start, last
        kind = ("bar" if sys.stderr.isatty() else "lines") if kind == "auto" else kind
        self.lines, self.clock = kind == "lines", time.monotonic()
        if kind != "off":
            print(f"{name}  {begun}", file=sys.stderr, flush=True)
        self.bar = tqdm(
            total=last,
            initial=start,
            disable=kind != "bar",
            unit="step",
            dynamic_ncols=True,
            desc=name,
            mininterval=1.0,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def update(self) -> None:
        """One step is done."""
        self.bar.update()

    def evaluated(self, line: Mapping[str, Any]) -> None:
        """An evaluation is done."""
        loss, found = sum(line["loss"].values()), line["test"]["ema"]["none"]
        self.bar.set_postfix_str(f"loss {loss:.2f}, test {_percent(found['top1'])} %")
        if not self.lines:
            return
        speed = (line["step"] - self.start) / max(1e-9, time.monotonic() - self.clock)
        parts = (
            time.strftime("%H:%M:%S"),
            self.name,
            f"step {line['step']}/{self.last}",
            f"loss {loss:.2f}",
            f"test {_percent(found['top1'])} % (balanced {_percent(found['balanced_accuracy'])}, "
            f"few {_percent(found['few'])})",
            f"{speed:.3g} steps/s",
            f"left {clock((self.last - line['step']) / speed)}",
        )
        print("  ".join(parts), file=sys.stderr, flush=True)


def _percent(share: float | None) -> str:
    return "—" if share is None else f"{100 * share:.1f}"


def clock(seconds: float) -> str:
    """`0:04`, `1:02:03`, `2 d 03:04`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 24:
        return f"{hours // 24} d {hours % 24:02}:{minutes:02}"
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
