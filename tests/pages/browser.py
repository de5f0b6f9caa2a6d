"""A headless Chromium, spoken to through a pipe in the words of its DevTools protocol."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Self

NAMES = ("chromium", "chromium-browser", "google-chrome")
_OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--mute-audio",
            "--disable-background-networking", "--disable-extensions", "--remote-debugging-pipe")  # fmt: skip


def installed() -> str | None:
    """The program, if there is one."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """One page. `said` is what the page complained of: errors on the console, and uncaught ones."""

    def __init__(self, profile: Path) -> None:
        (theirs, self.out), (self.into, back) = os.pipe(), os.pipe()
        wired = f'exec {installed()} "$@" 3<&{theirs} 4>&{back}'
        words = ["bash", "-c", wired, "chromium", *_OPTIONS, f"--user-data-dir={profile}", "about:blank"]
        self.process = subprocess.Popen(
            words, pass_fds=(theirs, back), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(theirs)
        os.close(back)
        self.said: list[str] = []
        self._number, self._session, self._buffer, self._seen = 0, None, b"", set()
        pages = self.call("Target.getTargets")["targetInfos"]
        page = next(each["targetId"] for each in pages if each["type"] == "page")
        self._session = self.call("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.requests: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(20)
        os.close(self.out)
        os.close(self.into)

    def call(self, method: str, **given: object) -> dict:
        """Do something and return what came of it."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": given}
        message |= {"sessionId": self._session} if self._session else {}
        os.write(self.out, json.dumps(message).encode() + b"\0")
        while (answer := self._read()).get("id") != self._number:
            self._note(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def open(self, path: Path, width: int, height: int = 900, scheme: str = "light", media: str = "screen") -> None:
        """Show a file at this width in CSS pixels, for eyes used to light or dark."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        dark = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", media=media, features=dark)
        self._seen.clear()
        self.call("Page.navigate", url=path.resolve().as_uri())
        until = time.monotonic() + 60
        while "Page.loadEventFired" not in self._seen:
            assert time.monotonic() < until, f"{path} did not load"
            self._note(self._read())

    def evaluate(self, script: str) -> object:
        """The value of an expression in the page."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def picture(self, path: Path, whole: bool = True) -> None:
        """Write a PNG of the page."""
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(data))

    def _read(self) -> dict:
        until = time.monotonic() + 60
        while b"\0" not in self._buffer:
            ready, *_ = select.select([self.into], [], [], max(0.0, until - time.monotonic()))
            part = os.read(self.into, 1 << 20) if ready else b""
            assert part, "the browser does not answer"
            self._buffer += part
        text, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(text)

    def _note(self, event: dict) -> None:
        method, given = event.get("method", ""), event.get("params", {})
        self._seen.add(method)
        if method == "Runtime.exceptionThrown" or (method == "Runtime.consoleAPICalled" and given["type"] == "error"):
            self.said.append(json.dumps(given)[:500])
        if method == "Log.entryAdded" and given["entry"]["level"] in ("error", "warning"):
            self.said.append(json.dumps(given["entry"])[:500])
        if method == "Network.requestWillBeSent":
            self.requests.append(given["request"]["url"])
