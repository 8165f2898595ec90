"""Debian's Chromium, driven by Playwright (https://playwright.dev/python/), with the few acts that tests repeat."""

import asyncio
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from playwright.async_api import CDPSession, ConsoleMessage, Error, async_playwright
from playwright.async_api import Frame as Loaded
from playwright.async_api import Page as Tab

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
WITHIN_SECONDS = 60.0
"""How long a test waits for a condition: longer than any machine needs, since it ends as soon as it holds."""


class Document:
    """The document of a tab or of a frame in it: what a person finds by its words, presses and fills in."""

    def __init__(self, loaded: Loaded) -> None:
        self._loaded = loaded

    async def look(self, expression: str) -> Any:
        """The value of a JavaScript expression in the document, also where the page's own scripts are switched off."""
        return await self._loaded.evaluate(expression)

    async def until(self, expression: str) -> None:
        """Wait until the expression holds, also while another document is being loaded."""
        last: object = "never looked at"
        try:
            async with asyncio.timeout(WITHIN_SECONDS):
                while True:
                    try:
                        if last := await self.look(expression):
                            return
                    except Error as error:
                        last = error
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"{expression} did not come to hold at {self._loaded.url}: {last}") from None

    async def fill(self, label: str, text: str) -> None:
        """Type into the field with that label, as a person does."""
        await self._loaded.get_by_label(label, exact=True).first.fill(text)

    async def press(self, beginning: str) -> None:
        """Press the button whose words begin so, by the mouse, when it is there."""
        words = re.compile(rf"^\s*{re.escape(beginning)}")
        await self._loaded.locator("button:visible").filter(has_text=words).first.click()


class Page(Document):
    """One tab. `tab` is Playwright's own, for what the acts here don't have."""

    def __init__(self, tab: Tab, devtools: CDPSession) -> None:
        super().__init__(tab.main_frame)
        self.tab = tab
        self._devtools = devtools
        self.complaints: list[str] = []
        """The errors and warnings of the browser's console about the page: what a policy blocked, for instance."""
        tab.on("console", self._hear)
        tab.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _hear(self, message: ConsoleMessage) -> None:
        # Chromium may keep the focus that a field had when the page was sent: no fault of the page.
        if message.type in ("error", "warning") and not message.text.startswith("Autofocus processing was blocked"):
            self.complaints.append(message.text)

    async def send(self, method: str, **params: Any) -> Any:
        """Call a method of Chromium's DevTools protocol that Playwright has no act for."""
        return await self._devtools.send(method, params)

    async def frame(self, path: str) -> Document:
        """The frame whose address has that path, when it is loaded."""
        async with asyncio.timeout(WITHIN_SECONDS):
            while True:
                for child in self.tab.main_frame.child_frames:
                    if urlsplit(child.url).path.startswith(path):
                        await child.wait_for_load_state()
                        return Document(child)
                await asyncio.sleep(0.05)

    async def open(self, address: str) -> None:
        await self.tab.goto(address)

    async def picture(self, path: Path) -> None:
        await self.tab.screenshot(path=path)


@asynccontextmanager
async def browsing(
    profile: Path, *, width: int = 1440, height: int = 900, scripts: bool = True, language: str = "en"
) -> AsyncIterator[Page]:
    """A browser with one empty tab of this size. Skip a test where `CHROMIUM` is None."""
    assert CHROMIUM is not None
    async with async_playwright() as playwright:
        context = await playwright.chromium.launch_persistent_context(
            profile,
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-quic"],
            viewport={"width": width, "height": height},
            is_mobile=width < 600,
            java_script_enabled=scripts,
            locale=language,
        )
        try:
            context.set_default_timeout(WITHIN_SECONDS * 1000)
            tab = context.pages[0]
            yield Page(tab, await context.new_cdp_session(tab))
        finally:
            await context.close()
