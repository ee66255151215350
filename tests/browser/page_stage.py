"""The demo page in a real Chromium, and the books of all that a page should not do."""

import re
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final
from urllib.parse import urlsplit

import pytest
from playwright.async_api import (
    Browser,
    ConsoleMessage,
    Locator,
    Page,
    Request,
    async_playwright,
    expect,
)

from tests.stage import Upstream, serving, settings_with

CHROMIUM: Final = shutil.which("chromium")
NEEDS_CHROMIUM: Final = pytest.mark.skipif(
    CHROMIUM is None, reason="chromium is not on PATH: apt-get install chromium"
)
OWN_KEY: Final = "sk-visitor-Ht55bQpLcVn0Jm2s"
COMPLETIONS: Final = "/v1/chat/completions"
TIMEOUT_MS: Final = 20_000

expect.set_options(timeout=TIMEOUT_MS)

_TELL_VIOLATIONS: Final = """
document.addEventListener('securitypolicyviolation', (event) =>
  console.error(`policy: ${event.violatedDirective} ${event.blockedURI}`));
"""


@dataclass
class Window:
    """A window on the page: what a visitor does there, and what the page did."""

    page: Page
    origin: str
    faults: list[str] = field(default_factory=list)
    console: list[str] = field(default_factory=list)
    turns: list[Request] = field(default_factory=list)

    def part(self, name: str) -> Locator:
        """An element by its id."""
        return self.page.locator(f"#{name}")

    async def open(self) -> None:
        """Go to the page and wait until it knows what its server has."""
        async with self.page.expect_response("**/readyz") as readiness:
            await self.page.goto(self.origin)
        await (await readiness.value).finished()

    async def ask(self, text: str) -> None:
        """Write a message and send it by Enter."""
        await self.part("message").fill(text)
        await self.part("message").press("Enter")

    async def chat(self, text: str) -> None:
        """Send a message and wait for its whole answer."""
        texts = self.page.locator(".text")
        said = await texts.count()
        await self.ask(text)
        await expect(texts).to_have_count(said + 2)
        await expect(self.part("status")).to_be_empty()

    async def stop_after(self, text: str) -> None:
        """Stop the answer under way as soon as this much of it is there."""
        await expect(self.page.locator(".text").last).to_have_text(text, use_inner_text=False)
        await self.part("stop").click()
        await expect(self.part("status")).to_have_text("Stopped.")

    async def texts(self) -> list[str]:
        """The conversation as it is shown."""
        return await self.page.locator(".text").all_text_contents()

    async def require_texts(self, *texts: str) -> None:
        """Wait until the conversation is these texts, to the letter, and nothing is under way."""
        await expect(self.page.locator(".text")).to_have_count(len(texts))
        await expect(self.part("status")).to_be_empty()
        assert await self.texts() == list(texts)

    async def give(self, key: str) -> None:
        """Give this own key where it is asked for."""
        await expect(self.part("own-key")).to_be_visible()
        await self.part("key").fill(key)
        await self.part("key").press("Enter")

    def hear(self, message: ConsoleMessage) -> None:
        """Keep what the page says to developers; a refused turn is no fault of the page."""
        self.console.append(message.text)
        refused = message.location["url"] == self.origin + COMPLETIONS
        if message.type in ("error", "warning") and not refused:
            self.faults.append(message.text)

    def note(self, request: Request) -> None:
        """Keep every turn that the page took, and everybody else whom it asked."""
        if urlsplit(request.url).path == COMPLETIONS:
            self.turns.append(request)
        if not request.url.startswith((self.origin, "data:")):
            self.faults.append(f"asked {request.url}")


Browse = Callable[..., AbstractAsyncContextManager[Window]]


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """A browser without a window."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM)
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def window_on(browser: Browser, origin: str, **view: Any) -> AsyncIterator[Window]:
    """The page in a window that remembers nothing; `view` is what Playwright makes it of."""
    page = await browser.new_page(**{"locale": "en-GB", "timezone_id": "Asia/Kolkata", **view})
    page.set_default_timeout(TIMEOUT_MS)
    window = Window(page, origin)
    page.on("console", window.hear)
    page.on("pageerror", lambda error: window.faults.append(str(error)))
    page.on("request", window.note)
    await page.add_init_script(_TELL_VIOLATIONS)
    try:
        await window.open()
        yield window
    finally:
        await page.close()


@asynccontextmanager
async def page_of(
    browser: Browser,
    redis_url: str,
    upstream: Upstream,
    own_upstream: Upstream,
    view: Any = None,
    **said: Any,
) -> AsyncIterator[Window]:
    """The page of a server with these settings, with an upstream for each mode."""
    urls = {"openai_base_url": upstream.url, "byok_base_url": own_upstream.url}
    settings = settings_with(redis_url=redis_url, **urls, **said)
    async with serving(settings) as server:
        # Its own origin, which it allows by itself where its port is no surprise.
        allowed = settings.model_copy(update={"allowed_origins": (server.url,)})
        server.app.state.keyturn = replace(server.keyturn, settings=allowed)
        async with window_on(browser, server.url, **(view or {})) as window:
            yield window


def contrast(one: str, other: str) -> float:
    """The contrast of two CSS colours (WCAG 2.2, 1.4.3): from 1 to 21."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def luminance(colour: str) -> float:
    """The relative luminance of an opaque CSS colour as browsers compute it, `rgb(r, g, b)`."""
    channels = re.fullmatch(r"rgb\((\d+), (\d+), (\d+)\)", colour)
    assert channels, f"{colour} is not opaque"
    shares = (int(channel) / 255 for channel in channels.groups())
    linear = [s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


STORAGE: Final = "() => JSON.stringify([{...sessionStorage}, {...localStorage}])"
FIELDS: Final = "() => [...document.querySelectorAll('input, textarea')].map((e) => e.value).join()"

# Every text that can be seen: itself, its colour, and the nearest ground that is not transparent.
SEEN_TEXTS: Final = """() => {
  const ground = (element) => {
    const colour = getComputedStyle(element).backgroundColor;
    return colour === 'rgba(0, 0, 0, 0)' ? ground(element.parentElement) : colour;
  };
  const seen = [...document.body.querySelectorAll('*')].filter((e) => e.checkVisibility());
  const texts = seen.filter((e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()))
    .map((e) => [e.textContent.trim(), getComputedStyle(e).color, ground(e)]);
  const fields = seen.filter((e) => e.matches('input, textarea'));
  return texts
    .concat(fields.map((e) => [`in ${e.id}`, getComputedStyle(e).color, ground(e)]))
    .concat(fields.map((e) => [`hint in ${e.id}`,
      getComputedStyle(e, '::placeholder').color, ground(e)]));
}"""
