"""The evaluations of a run as TensorBoard scalars."""

import os
import platform
import re
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, Self


class Curves:
    """Writes each evaluation to the run's folder, from step `start` on, if `wanted`.

    They are optional: where they cannot be written, a line says so and the run goes on. TensorBoard's own writer is
    not used, because it writes in a thread whose errors cannot be caught.
    """

    def __init__(
        self, folder: Path, start: int, wanted: bool, name: str = "", settings: Mapping[str, object] | None = None
    ) -> None:
        """The curves are called `name`; `settings` are shown as its hyperparameters."""
        shown = re.sub(r"[^\w.-]+", "_", name).strip("._")
        self.folder, self.file, self.records = folder / "tensorboard" / shown, None, None
        if not wanted:
            return
        from tensorboard.summary.writer.record_writer import RecordWriter  # imported here because it is slow

        made: Any = import_module("tensorboard.compat.proto.event_pb2")  # its names are made when it is imported
        self._event = Event = made.Event
        self._summary: Any = import_module("tensorboard.compat.proto.summary_pb2").Summary
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            file = f"events.out.tfevents.{time.time():.0f}.{platform.node()}.{os.getpid()}"
            self.file = (self.folder / file).open("ab")
        except OSError as error:
            self._give_up(error)
            return
        self.records = RecordWriter(self.file)
        events = [Event(wall_time=time.time(), file_version="brain.Event:2")]
        if start:  # what an earlier session drew after its last checkpoint is drawn again
            again = made.SessionLog(status=made.SessionLog.START)
            events.append(Event(wall_time=time.time(), step=start, session_log=again))
        events += [Event(wall_time=time.time(), summary=each) for each in _hyperparameters(settings or {})]
        self._write(events)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self.file:
                self.file.close()
        except OSError as error:
            self._give_up(error)

    def draw(self, line: dict) -> None:
        """Write one evaluation."""
        scalars = {f"loss/{name}": value for name, value in line["loss"].items()} | {"lr": line["lr"]}
        for split in ("test", "valid"):
            for name, offsets in line.get(split, {}).items():
                scalars |= {
                    f"{split}/{name}/{offset}/{metric}": values[metric]
                    for offset, values in offsets.items()
                    for metric in ("top1", "balanced_accuracy", "few")
                    if values.get(metric) is not None
                }
        for head, values in line["policy"].items():
            scalars |= {f"policy/{head}/{key}": value for key, value in values.items()}
        quality = line.get("quality", {})
        scalars |= {f"pseudo_labels/{key}": value for key, value in quality.items() if isinstance(value, float)}
        if self.records:
            now, step, value_of = time.time(), line["step"], self._summary.Value
            self._write(
                [
                    self._event(
                        wall_time=now, step=step, summary=self._summary(value=[value_of(tag=tag, simple_value=y)])
                    )
                    for tag, y in scalars.items()
                ]
            )

    def _write(self, events: list[Any]) -> None:
        if (records := self.records) is None:
            return
        try:
            for event in events:
                records.write(event.SerializeToString())
            records.flush()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        print(f"no more TensorBoard curves in {self.folder} ({error.strerror or error})", file=sys.stderr)
        file, self.file, self.records = self.file, None, None
        if file:
            with suppress(OSError):
                file.close()


def _hyperparameters(settings: Mapping[str, object]) -> list[Any]:
    """What the plugin for hyperparameters reads."""
    from torch.utils.tensorboard.summary import hparams

    plain = {
        key: value if isinstance(value, bool | int | float | str) else str(value) for key, value in settings.items()
    }
    return list(hparams(plain, {"test/ema/none/top1": 0.0})) if plain else []
