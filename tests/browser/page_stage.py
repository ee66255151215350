"""The demo page in a real Chromium, and the books of all that a page should not do."""

import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final
from urllib.parse import urlsplit

import pytest
import redis
from playwright.async_api import (
    Browser,
    ConsoleMessage,
    Locator,
    Page,
    Request,
    async_playwright,
    expect,
)

from settings import Settings
from tests.stage import Server, Upstream, eventually, serving, settings_with
from tests.upstream import play

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
        async with (
            self.page.expect_response("**/readyz") as readiness,
            self.page.expect_response("**/v1/models") as models,
        ):
            await self.page.goto(self.origin)
        await (await readiness.value).finished()
        await (await models.value).finished()
        await self.page.evaluate("() => {}")

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
        return [text.strip() for text in await self.page.locator(".text").all_text_contents()]

    def action(self, name: str, of: int = -1) -> Locator:
        """What can be done with a message: a button below it."""
        actions = self.page.locator(".message > .actions").nth(of)
        return actions.get_by_role("button", name=name, exact=True)

    async def require_texts(self, *texts: str) -> None:
        """Wait until the conversation is these texts, and nothing is under way."""
        await expect(self.page.locator(".text")).to_have_count(len(texts))
        await expect(self.part("status")).to_be_empty()
        assert await self.texts() == [text.strip() for text in texts]

    async def wait_for(self, holds: str) -> None:
        """Wait until this expression holds; the policy lets Playwright evaluate none by itself."""

        async def does_hold() -> Any:
            return await self.page.evaluate(holds)

        await eventually(does_hold)

    async def give(self, key: str) -> None:
        """Give this own key where it is asked for."""
        await expect(self.part("own-key")).to_be_visible()
        await self.part("key").fill(key)
        await self.part("key").press("Enter")

    def hear(self, message: ConsoleMessage) -> None:
        """Keep what the page says to developers; a server that refuses or is gone is no fault."""
        self.console.append(message.text)
        may_fail = (COMPLETIONS, "/readyz", "/api/health")
        failed = message.location["url"] in [self.origin + path for path in may_fail]
        if message.type in ("error", "warning") and not failed:
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
    usual = {"locale": "en-GB", "timezone_id": "Asia/Kolkata"}
    context = await browser.new_context(**{**usual, **view})
    context.set_default_timeout(TIMEOUT_MS)
    await context.add_init_script(_TELL_VIOLATIONS)
    try:
        window = watched(await context.new_page(), origin)
        await window.open()
        yield window
    finally:
        await context.close()


def watched(page: Page, origin: str) -> Window:
    """A window on this page that keeps the books of it."""
    window = Window(page, origin)
    page.on("console", window.hear)
    page.on("pageerror", lambda error: window.faults.append(str(error)))
    page.on("request", window.note)
    return window


@asynccontextmanager
async def page_server(settings: Settings, port: int = 0) -> AsyncIterator[Server]:
    """A server that allows its own origin, as it does by itself where its port is no surprise."""
    async with serving(settings, port=port) as server:
        allowed = settings.model_copy(update={"allowed_origins": (server.url,)})
        server.app.state.keyturn = replace(server.keyturn, settings=allowed)
        yield server


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
    settings = settings_with(**{"redis_url": redis_url, **urls, **said})
    async with (
        page_server(settings) as server,
        window_on(browser, server.url, **(view or {})) as window,
    ):
        yield window


def messages_of(entry: dict[str, Any]) -> list[str]:
    """The texts of a conversation as it came upstream."""
    return [message["content"].strip() for message in entry["body"]["messages"]]


async def spend_all(window: Window) -> list[str]:
    """Two turns, of which the second costs more than a cent; returns what was said."""
    await window.chat("first")
    await window.chat(play(prompt=1_000_000))
    return await window.texts()


def fill_rate(redis_url: str, interval: float, burst: int, wait: float) -> None:
    """Make the limit of the only visitor so full that the next turn has to wait so many seconds.

    `interval` is the seconds between two turns; whoever chats until the limit is full may be slow.
    """
    with redis.Redis.from_url(redis_url) as operator:
        (rate,) = (key for key in operator.keys("*:rate:*") if not key.endswith(b":readyz"))
        seconds, micros = operator.time()
        arrival = seconds * 1_000_000 + micros + ((burst - 1) * interval + wait) * 1_000_000
        operator.set(rate, round(arrival), ex=60)


STORAGE: Final = "() => JSON.stringify([{...sessionStorage}, {...localStorage}])"
FIELDS: Final = "() => [...document.querySelectorAll('input, textarea')].map((e) => e.value).join()"
