"""Chromium, driven over its DevTools protocol: https://chromedevtools.github.io/devtools-protocol/."""

import asyncio
import base64
import json
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
WITHIN_SECONDS = 60.0
"""How long a test waits for a condition: longer than any machine needs, since it ends as soon as it holds."""


class Document:
    """The document of a tab or of a frame in it: what a person finds by its label and fills in."""

    async def look(self, expression: str) -> Any:
        """The value of a JavaScript expression in the document, evaluated by the browser and not by the document."""
        raise NotImplementedError

    async def insert(self, text: str) -> None:
        """Type into the field that has the focus."""
        raise NotImplementedError

    async def until(self, expression: str) -> None:
        """Wait until the expression holds, also while another document is being loaded."""
        async with asyncio.timeout(WITHIN_SECONDS):
            while True:
                with suppress(AssertionError):
                    if await self.look(expression):
                        return
                await asyncio.sleep(0.05)

    async def fill(self, label: str, text: str) -> None:
        """Type into the field with that label, as a person does."""
        found = (
            "(() => { const label = [...document.querySelectorAll('label')]"
            f".find(one => one.textContent.trim() === {json.dumps(label)}); const field = label && label.control;"
            " if (!field) return false; field.focus(); field.select(); return true; })()"
        )
        assert await self.look(found), f"no field is labelled {label!r}"
        await self.insert(text)


class Page(Document):
    """One tab. Nothing of it depends on scripts of the page, so that they can be switched off."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._sent = 0
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._reader = asyncio.create_task(self._read())
        self._contexts: dict[str, int] = {}
        """The context of scripts in each frame, by the frame's id."""
        self.complaints: list[str] = []
        """The messages of the browser's console about the page: what a policy blocked, for instance."""

    async def _read(self) -> None:
        async for message in self._socket:
            told = json.loads(message.data)
            if "id" in told:
                self._answers.pop(told["id"]).set_result(told)
            elif told.get("method") == "Log.entryAdded":
                text = told["params"]["entry"]["text"]
                # Chromium may keep the focus that a field had when the page was sent: no fault of the page.
                if not text.startswith("Autofocus processing was blocked"):
                    self.complaints.append(text)
            elif told.get("method") == "Runtime.executionContextCreated":
                made = told["params"]["context"]
                if made["auxData"].get("isDefault"):
                    self._contexts[made["auxData"]["frameId"]] = made["id"]

    async def send(self, method: str, **params: Any) -> Any:
        self._sent += 1
        number = self._sent
        self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": params})
        answer = await asyncio.wait_for(self._answers[number], WITHIN_SECONDS)
        assert "error" not in answer, f"{method}: {answer}"
        return answer["result"]

    async def look(self, expression: str) -> Any:
        result = await self.send("Runtime.evaluate", expression=expression, returnByValue=True)
        return result["result"].get("value")

    async def insert(self, text: str) -> None:
        await self.send("Input.insertText", text=text)

    async def frame(self, path: str) -> "Frame":
        """The frame whose address has that path, when it is loaded. The origin must be of the page's own site: frames
        of other sites have processes of their own, which this does not reach."""
        async with asyncio.timeout(WITHIN_SECONDS):
            while True:
                for id, address in await self.frames():
                    if urlsplit(address).path.startswith(path) and id in self._contexts:
                        return Frame(self, id)
                await asyncio.sleep(0.05)

    async def frames(self) -> list[tuple[str, str]]:
        """The id and address of each frame directly in the page."""
        tree = (await self.send("Page.getFrameTree"))["frameTree"]
        return [(child["frame"]["id"], child["frame"]["url"]) for child in tree.get("childFrames", [])]

    def context_of(self, frame: str) -> int:
        return self._contexts[frame]

    async def open(self, address: str) -> None:
        await self.send("Page.navigate", url=address)
        await self.until("location.href !== 'about:blank' && document.readyState === 'complete'")

    async def press(self, beginning: str) -> None:
        """Press the button with that beginning, by the mouse, when it is there."""
        await self.until(_has_button(beginning))
        place = await self.look(
            "(() => { const button = [...document.querySelectorAll('button')]"
            f".find(one => one.textContent.trim().startsWith({json.dumps(beginning)})); if (!button) return null;"
            " button.scrollIntoView({block: 'center'}); const box = button.getBoundingClientRect();"
            " return {x: box.x + box.width / 2, y: box.y + box.height / 2}; })()"
        )
        assert place is not None, f"no button begins with {beginning!r}"
        for kind in ("mousePressed", "mouseReleased"):
            await self.send("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **place)

    async def enter(self) -> None:
        """Press the Enter key."""
        enter = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"}
        for kind in ("keyDown", "keyUp"):
            await self.send("Input.dispatchKeyEvent", type=kind, **enter)

    async def picture(self, path: Path) -> None:
        shot = await self.send("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(shot["data"]))


class Frame(Document):
    """A frame in a page."""

    def __init__(self, page: Page, id: str) -> None:
        self._page = page
        self._id = id

    async def look(self, expression: str) -> Any:
        context = self._page.context_of(self._id)
        told = await self._page.send("Runtime.evaluate", expression=expression, returnByValue=True, contextId=context)
        return told["result"].get("value")

    async def insert(self, text: str) -> None:
        await self._page.insert(text)

    async def press(self, beginning: str) -> None:
        """Press the button with that beginning, by the keyboard, when it is there."""
        await self.until(_has_button(beginning))
        found = (
            "(() => { const button = [...document.querySelectorAll('button')]"
            f".find(one => one.textContent.trim().startsWith({json.dumps(beginning)})); if (!button) return false;"
            " button.focus(); return true; })()"
        )
        assert await self.look(found), f"no button begins with {beginning!r}"
        await self._page.enter()


def _has_button(beginning: str) -> str:
    return (
        "[...document.querySelectorAll('button')]"
        f".some(one => one.textContent.trim().startsWith({json.dumps(beginning)}))"
    )


@asynccontextmanager
async def browsing(
    profile: Path, *, width: int = 1440, height: int = 900, scripts: bool = True, language: str = "en"
) -> AsyncIterator[Page]:
    """A browser with one empty tab of this size. Skip a test where `CHROMIUM` is None."""
    assert CHROMIUM is not None
    process = subprocess.Popen(
        [
            *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
            *("--disable-dev-shm-usage", "--remote-debugging-port=0", "--remote-allow-origins=*"),
            *(f"--user-data-dir={profile}", f"--accept-lang={language}", "about:blank"),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        port_file = profile / "DevToolsActivePort"
        async with asyncio.timeout(WITHIN_SECONDS):
            while not port_file.exists() or not port_file.read_text().strip():
                await asyncio.sleep(0.05)
        port = port_file.read_text().split()[0]
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/json/list") as listed:
                tabs = [tab for tab in await listed.json(content_type=None) if tab["type"] == "page"]
            async with session.ws_connect(tabs[0]["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                page = Page(socket)
                for domain in ("Page", "Runtime", "Log"):
                    await page.send(f"{domain}.enable")
                await page.send(
                    "Emulation.setDeviceMetricsOverride",
                    width=width,
                    height=height,
                    deviceScaleFactor=1,
                    mobile=width < 600,
                )
                if not scripts:
                    await page.send("Emulation.setScriptExecutionDisabled", value=True)
                yield page
    finally:
        # Asked to end, it removes its temporary files.
        process.terminate()
        try:
            process.wait(WITHIN_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
