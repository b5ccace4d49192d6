"""Headless Chromium, driven through its DevTools protocol, for tests of the pages we serve."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import aiohttp

from tests.missing import missing

# No connections but to the page under test, and no prompts.
_FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    " --disable-component-update --disable-sync --hide-scrollbars --remote-debugging-port=0"
)


def chromium() -> str:
    """Return Chromium's path; without it the test fails in CI and says so elsewhere."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    return found or missing("Chromium")


class Browser:
    """One page in a browser of its own."""

    def __init__(self, folder: Path, width: int = 1280, height: int = 800) -> None:
        """Start Chromium with an empty profile in `folder`."""
        command = [chromium(), *_FLAGS.split(), f"--window-size={width},{height}", f"--user-data-dir={folder}"]
        self._process = subprocess.Popen(
            [*command, "about:blank"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self.errors: list[str] = []  # what the page wrote to its console as an error
        self._loop, self._count = asyncio.new_event_loop(), 0
        self._loop.run_until_complete(self._connect(folder / "DevToolsActivePort"))

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.run_until_complete(self._session.close())
        self._loop.close()
        self._process.terminate()
        self._process.wait(20)

    def open(self, address: str) -> None:
        self.send("Page.enable")
        self.send("Runtime.enable")
        self.send("Page.navigate", url=address)

    def run(self, script: str) -> Any:
        """Evaluate an expression in the page and return its value."""
        reply = self.send("Runtime.evaluate", expression=script, returnByValue=True)
        if "exceptionDetails" in reply:
            raise AssertionError(reply["exceptionDetails"]["exception"].get("description"))
        return reply["result"].get("value")

    def wait(self, condition: str, seconds: float = 60) -> Any:
        """Wait until an expression is true in the page, and return its value."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if (value := self.run(condition)) not in (None, False, "", 0):  # an element comes as {}
                return value
            time.sleep(0.1)
        raise AssertionError(f"not true within {seconds:.0f} s: {condition}\n{self.run('document.body.innerText')}")

    def text(self, selector: str) -> str:
        return str(self.run(f"(document.querySelector({json.dumps(selector)}) || {{}}).innerText || ''"))

    def click(self, selector: str) -> None:
        x, y = self.wait(
            f"(e => e && (r => [r.x + r.width / 2, r.y + r.height / 2])(e.getBoundingClientRect()))"
            f"(document.querySelector({json.dumps(selector)}))"
        )
        self.drag((x, y), (x, y))

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Press the mouse at one place of the window, in CSS pixels, and let go at another."""
        self._mouse("mouseMoved", start, 0)
        self._mouse("mousePressed", start, 1)
        if end != start:
            self._mouse("mouseMoved", ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2), 1)
            self._mouse("mouseMoved", end, 1)
        self._mouse("mouseReleased", end, 0)

    def type(self, selector: str, text: str) -> None:
        """Replace what stands in a text field."""
        self.run(f"(e => {{ e.focus(); e.select() }})(document.querySelector({json.dumps(selector)}))")
        self.send("Input.insertText", text=text)

    def press(self, key: str, control: bool = False) -> None:
        for kind in ("keyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key, modifiers=2 if control else 0)

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"]))

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        return self._loop.run_until_complete(self._send(method, params))

    def _hear(self, event: dict[str, Any]) -> None:
        if event.get("method") == "Runtime.exceptionThrown":
            self.errors.append(str(event["params"]["exceptionDetails"]))
        elif event.get("method") == "Runtime.consoleAPICalled" and event["params"]["type"] == "error":
            self.errors.append(" ".join(str(a.get("value", a.get("description"))) for a in event["params"]["args"]))

    def _mouse(self, kind: str, at: tuple[float, float], buttons: int) -> None:
        extra = {} if kind == "mouseMoved" else {"button": "left", "clickCount": 1}
        self.send("Input.dispatchMouseEvent", type=kind, x=at[0], y=at[1], buttons=buttons, **extra)

    async def _connect(self, port_file: Path) -> None:
        self._session = aiohttp.ClientSession()
        end = time.monotonic() + 60
        while not (port_file.exists() and port_file.read_text().count("\n")):
            assert self._process.poll() is None, "Chromium ended at once"
            assert time.monotonic() < end, "Chromium did not start within 60 s"
            await asyncio.sleep(0.1)
        port = port_file.read_text().splitlines()[0]
        async with self._session.get(f"http://127.0.0.1:{port}/json/list") as reply:
            page = next(p for p in await reply.json() if p["type"] == "page")
        self._socket = await self._session.ws_connect(page["webSocketDebuggerUrl"], max_msg_size=0)

    async def _send(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        self._count += 1
        await self._socket.send_json({"id": self._count, "method": method, "params": params})
        async for message in self._socket:
            reply = json.loads(message.data)
            self._hear(reply)
            if reply.get("id") == self._count:
                assert "error" not in reply, f"{method}: {reply['error']}"
                return dict(reply["result"])
        raise AssertionError(f"Chromium closed the connection during {method}")
