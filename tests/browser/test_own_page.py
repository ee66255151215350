"""The page in the README, copied as a reader copies it and opened from another port."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Browser, Page, expect

from tests.browser.page_stage import NEEDS_CHROMIUM
from tests.other_origin import other_origin
from tests.stage import PATIENT, ROOT, Upstream, eventually, serving, settings_with

pytestmark = [NEEDS_CHROMIUM, pytest.mark.asyncio(loop_scope="module")]

KEYTURN: Final = "localhost:8000"
PAGE: Final = "localhost:5500"


def in_readme(fence: str, beginning: str) -> str:
    """The block of code in the README that begins so."""
    blocks = (ROOT / "README.md").read_text().split(f"```{fence}\n")[1:]
    found = [block.partition("```")[0] for block in blocks if block.startswith(beginning)]
    assert len(found) == 1
    return found[0]


def said_origins() -> str:
    """What the README says to set."""
    command = in_readme("sh", "ALLOWED_ORIGINS=")
    return command.removeprefix("ALLOWED_ORIGINS=").split()[0]


Open = Callable[..., AbstractAsyncContextManager[Page]]


@asynccontextmanager
async def opened(
    browser: Browser,
    redis_url: str,
    upstream: Upstream,
    folder: Path,
    *without: str,
) -> AsyncIterator[Page]:
    """The page as the README has it, each port replaced by a free one; some origins left out."""
    async with other_origin(folder) as here, await browser.new_page() as page:
        origin = f"localhost:{urlsplit(here).port}"
        told = [one for one in said_origins().split(",") if not one.endswith(without)]
        allowed = ",".join(told).replace(PAGE, origin)
        settings = settings_with(
            redis_url=redis_url, openai_base_url=upstream.url, allowed_origins=allowed, **PATIENT
        )
        async with serving(settings) as server:
            document = in_readme("html", "<!doctype html>")
            document = document.replace(KEYTURN, f"localhost:{urlsplit(server.url).port}")
            (folder / "index.html").write_text(document)
            await page.clock.install()
            await page.goto(f"http://{origin}")
            yield page


@pytest.fixture
def readme_page(browser: Browser, redis_url: str, upstream: Upstream, tmp_path: Path) -> Open:
    """Open the page that stands in the README."""
    return partial(opened, browser, redis_url, upstream, tmp_path)


async def ask(page: Page, text: str) -> None:
    """Write a message and send it."""
    await page.get_by_label("Message").fill(text)
    await page.get_by_role("button", name="Send").click()


async def test_the_page_of_the_readme_chats(readme_page: Open, upstream: Upstream) -> None:
    """By its own field and button, from the origin that the README says to allow."""
    async with readme_page() as page:
        faults: list[Any] = []
        page.on("pageerror", lambda error: faults.append(error))
        lines = page.get_by_role("listitem")
        await ask(page, "Good morning!")
        await expect(lines).to_have_text(["Good morning!", "Good morning! " * 3])
        await ask(page, "And again.")
        await expect(lines.last).to_have_text("And again. " * 3)
        assert faults == []
    books = await upstream.books()
    assert [len(entry["body"]["messages"]) for entry in books] == [1, 3]


async def test_from_an_origin_that_is_not_allowed_it_says_so(
    readme_page: Open, upstream: Upstream
) -> None:
    """Nothing is sent upstream, and the page names the origin that is missing."""
    async with readme_page(PAGE) as page:
        await ask(page, "Good morning!")
        refusal = page.get_by_role("listitem").last

        async def refused() -> bool:
            await page.clock.fast_forward("01:00")  # it tries again for a while
            return "ALLOWED_ORIGINS" in await refusal.inner_text()

        await eventually(refused)
        assert urlsplit(page.url).netloc in await refusal.inner_text()
    assert await upstream.books() == []


async def test_the_page_is_among_the_examples() -> None:
    """What stands in the README can also be copied as a file."""
    example = (ROOT / "examples" / "page.html").read_text()
    assert in_readme("html", "<!doctype html>") == example
