"""A browser without a window, driven through its debugging pipe: enough of the protocol to look at one page."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


def find_browser() -> str | None:
    """Return the path of Debian's chromium, None where there is none."""
    return shutil.which("chromium")


class Browser:
    """One page of a running browser: messages are JSON, a zero byte apart."""

    def __init__(self, requests: int, replies: int) -> None:
        self._requests, self._replies = requests, replies
        self._number, self._rest, self._session = 0, b"", ""
        self.problems: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send one command and return its result, once it is there."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._requests, json.dumps(message).encode() + b"\0")
        return self._wait(lambda reply: reply.get("id") == self._number, method)["result"]

    def open(self, file: Path) -> None:
        """Show a file, and wait until it is loaded."""
        self.call("Page.navigate", url=file.resolve().as_uri())
        self._wait(lambda reply: reply.get("method") == "Page.loadEventFired", "load")

    def size(self, width: int, height: int = 900) -> None:
        """Make the page's window as large as this, in pixels."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **metrics)

    def scheme(self, name: str) -> None:
        """Prefer light or dark."""
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    def evaluate(self, script: str) -> Any:
        """Return what an expression gives in the page."""
        reply = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in reply, reply
        return reply["result"].get("value")

    def press(self, key: str, code: int) -> None:
        """Press and release a key."""
        text = {"Enter": "\r", " ": " "}.get(key, "")
        shared = {"key": key, "windowsVirtualKeyCode": code, "code": {" ": "Space"}.get(key, key)}
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **shared)
        self.call("Input.dispatchKeyEvent", type="keyUp", **shared)

    def _wait(self, wanted: Any, what: str) -> dict[str, Any]:
        while True:
            while b"\0" not in self._rest:
                block = os.read(self._replies, 1 << 16)
                assert block, f"the browser went away during {what}"
                self._rest += block
            line, _, self._rest = self._rest.partition(b"\0")
            reply = json.loads(line)
            if reply.get("method") == "Log.entryAdded" and reply["params"]["entry"]["level"] == "error":
                self.problems.append(reply["params"]["entry"]["text"])
            if reply.get("method") == "Network.requestWillBeSent":
                url = reply["params"]["request"]["url"]
                if not url.startswith(("file:", "data:", "about:")):
                    self.problems.append(f"asked for {url}")
            if wanted(reply):
                assert "error" not in reply, reply
                return reply


@contextmanager
def open_browser(program: str) -> Iterator[Browser]:
    """Start a browser of one's own, and end it."""
    to_read, requests = os.pipe()
    replies, to_write = os.pipe()
    # The protocol's pipes are the descriptors 3 and 4; the detour keeps one from closing the other.
    move = f"import os, sys; os.dup2({to_read}, 100); os.dup2({to_write}, 101); os.dup2(100, 3); os.dup2(101, 4); "
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"]
        options += [f"--user-data-dir={profile}", "--remote-debugging-pipe", "--no-first-run"]
        process = subprocess.Popen(
            [sys.executable, "-c", f"{move}os.execv(sys.argv[1], sys.argv[1:])", program, *options],
            pass_fds=(to_read, to_write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_read)
        os.close(to_write)
        try:
            yield Browser(requests, replies)
        finally:
            with suppress(OSError):
                os.write(requests, b'{"id":999999,"method":"Browser.close"}\0')
            os.close(requests)
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            os.close(replies)
