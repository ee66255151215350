"""The operator's page in a real Chromium, and the books of what it should not do."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from playwright.async_api import Browser, ConsoleMessage, Page, expect

from settings import Settings
from tests.browser.page_stage import _TELL_VIOLATIONS, TIMEOUT_MS, Window
from tests.operator_stage import TOKEN
from tests.stage import Server, serving

UNANSWERED = tuple(f"status of {status}" for status in (401, 422, 429, 503))


class Desk(Window):
    """A window on the operator's page; refusals of its API are no faults, and are shown."""

    async def open(self) -> None:
        """Go to the page and wait until it knows whether there is a session."""
        await self.page.goto(self.origin + "/admin")
        await expect(self.page.locator("#login:visible, #board:visible")).to_have_count(1)

    async def log_in(self, token: str = TOKEN) -> None:
        """Show the token, and wait until the state is there."""
        await self.part("token").fill(token)
        await self.part("token").press("Enter")
        await expect(self.part("as-of")).to_contain_text("As of")

    async def look_again(self) -> None:
        """Have the page's clock jump ahead, so that all it looks at from time to time is due at the
        next look, within three seconds."""
        await self.page.clock.install()
        await self.page.clock.fast_forward("01:00")

    def hear(self, message: ConsoleMessage) -> None:
        """Keep what the page says to developers."""
        self.console.append(message.text)
        expected = any(each in message.text for each in UNANSWERED)
        if message.type in ("error", "warning") and not expected:
            self.faults.append(message.text)


@asynccontextmanager
async def desk_at(browser: Browser, origin: str, **view: Any) -> AsyncIterator[Desk]:
    """The page in a window that remembers nothing, not logged in."""
    usual = {"locale": "en-GB", "timezone_id": "Asia/Kolkata"}
    context = await browser.new_context(**{**usual, **view})
    context.set_default_timeout(TIMEOUT_MS)
    await context.add_init_script(_TELL_VIOLATIONS)
    try:
        desk = watched(await context.new_page(), origin)
        await desk.open()
        yield desk
    finally:
        await context.close()


def watched(page: Page, origin: str) -> Desk:
    """A desk on this page that keeps the books of it."""
    desk = Desk(page, origin)
    page.on("console", desk.hear)
    page.on("pageerror", lambda error: desk.faults.append(str(error)))
    page.on("request", desk.note)
    return desk


@asynccontextmanager
async def desk_of(
    browser: Browser, settings: Settings, **view: Any
) -> AsyncIterator[tuple[Desk, Server]]:
    """A server with these settings, and its operator's page with a session."""
    async with serving(settings) as server, desk_at(browser, server.url, **view) as desk:
        await desk.log_in()
        yield desk, server
