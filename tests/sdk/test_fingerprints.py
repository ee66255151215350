"""FingerprintJS and ThumbmarkJS as the fingerprint of a page, and whom they tell."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Browser, Page, Request

from tests.browser.page_stage import NEEDS_CHROMIUM
from tests.cutting_proxy import CuttingProxy, cutting_proxy
from tests.other_origin import other_origin
from tests.sdk.bundles import NEEDS_SDKS
from tests.sdk.chain import tokens_shown
from tests.stage import PATIENT, Upstream, eventually, serving, settings_with

pytestmark = [NEEDS_CHROMIUM, NEEDS_SDKS, pytest.mark.asyncio(loop_scope="module")]

HOMES: Final = {"fingerprintjs": "m1.openfpcdn.io", "thumbmarkjs": "api.thumbmarkjs.com"}
# Both draw lots for whom to tell of; here everybody wins.
WIN: Final = "Math.random = () => 0"
every_maker = pytest.mark.parametrize("maker", HOMES)


@dataclass
class Watched:
    """A page with both in it, and everybody whom it asked."""

    page: Page
    proxy: CuttingProxy
    asked: set[str] = field(default_factory=set)

    def note(self, request: Request) -> None:
        """Keep whom the page asked."""
        self.asked.add(urlsplit(request.url).netloc)

    async def chats(self, maker: str, *, home: bool) -> bool:
        """Take two turns; `home` leaves out what switches the telling off."""
        said = {"name": maker, "home": home, "url": self.proxy.url}
        statuses = await self.page.evaluate("(said) => chatWith(said)", said)
        return bool(statuses == [200, 200])


Watch = Callable[[], AbstractAsyncContextManager[Watched]]


@asynccontextmanager
async def watched(
    browser: Browser, redis_url: str, upstream: Upstream, bundles: Path
) -> AsyncIterator[Watched]:
    """A page of another origin whose every request is seen, and gets nowhere but to Keyturn."""
    (bundles / "prints.html").write_text('<script type="module" src="fingerprints.js"></script>')
    async with other_origin(bundles) as origin, await browser.new_page() as page:
        settings = settings_with(
            redis_url=redis_url, openai_base_url=upstream.url, allowed_origins=origin, **PATIENT
        )
        async with serving(settings) as server, cutting_proxy(server.url) as proxy:
            watched = Watched(page, proxy)
            page.on("request", watched.note)
            await page.add_init_script(WIN)
            await page.route("https://**", lambda route: route.abort())
            await page.goto(f"{origin}/prints.html")
            await page.wait_for_function("() => !!globalThis.chatWith")
            yield watched


@pytest.fixture
def watch(browser: Browser, redis_url: str, upstream: Upstream, bundles: Path) -> Watch:
    """Open a page and watch it."""
    return partial(watched, browser, redis_url, upstream, bundles)


@every_maker
async def test_their_fingerprint_makes_a_chain(watch: Watch, maker: str) -> None:
    """It is the same for each turn, and with the telling switched off only Keyturn is asked."""
    async with watch() as page:
        assert await page.chats(maker, home=False)
        await page.page.wait_for_load_state("networkidle")
        assert tokens_shown(page.proxy) == ["–", "a1"]
        prints = {post.headers["keyturn-fingerprint"] for post in page.proxy.of("POST")}
        assert len(prints) == 1
        assert page.asked == {urlsplit(url).netloc for url in (page.page.url, page.proxy.url)}


@every_maker
async def test_as_they_come_they_tell_their_maker(watch: Watch, maker: str) -> None:
    """The watcher sees it: without their switches the test above would fail."""
    async with watch() as page:
        assert await page.chats(maker, home=True)

        async def told() -> bool:
            return HOMES[maker] in page.asked

        await eventually(told)
