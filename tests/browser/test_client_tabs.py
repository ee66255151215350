"""client.js in several tabs and over several loads of a page, in a real Chromium."""

import asyncio

import pytest
import redis
from playwright.async_api import Browser, async_playwright

from tests.browser.client_page import Chat, Tab, fields, require_unbroken, tab_on, window
from tests.browser.page_stage import CHROMIUM, NEEDS_CHROMIUM
from tests.stage import Upstream, eventually
from tests.upstream import play

pytestmark = [NEEDS_CHROMIUM, pytest.mark.asyncio(loop_scope="module")]

ECHO = "{0} {0} {0} "
ENDLESS = play(hang_after=1)
NO_LOCKS = "Object.defineProperty(Navigator.prototype, 'locks', { value: undefined })"


def chains(redis_url: str) -> int:
    """How many chains there are."""
    with redis.Redis.from_url(redis_url) as operator:
        return len(operator.keys("*:chain:*"))


async def test_a_reload_keeps_the_chain(browser: Browser, chat: Chat, redis_url: str) -> None:
    """Token and fingerprint come back, as often as the page is loaded, also from elsewhere."""
    async with chat() as (site, _), window(browser) as context:
        tab = await tab_on(context, site.url)
        prints = set()
        last = None
        for visit in range(6):
            await tab.say(f"visit {visit}")
            told = (await tab.exchanges())[0]
            assert (told["status"], told["shown"]) == (200, last)
            last = f"Bearer {told['successor']}"
            prints.add(told["print"])
            if visit % 2:
                await tab.page.goto(f"{site.url}/another/page")
            else:
                await tab.page.reload()
            await tab.ready()
        assert len(prints) == 1
    assert chains(redis_url) == 1


async def test_a_reload_in_mid_stream_keeps_the_chain(browser: Browser, chat: Chat) -> None:
    """The token came with the headers, so the page that comes back has it."""
    async with chat() as (site, _), window(browser) as context:
        tab = await tab_on(context, site.url)
        await tab.begin(ENDLESS)
        await tab.until_words("word ")
        before = (await tab.exchanges())[0]
        await tab.page.reload()
        await tab.ready()
        assert await tab.say("again") == ECHO.format("again")
        after = (await tab.exchanges())[0]
        assert (after["status"], after["shown"]) == (200, f"Bearer {before['successor']}")
        assert after["print"] == before["print"]


async def test_a_reload_before_the_headers_begins_a_new_chain(
    browser: Browser, chat: Chat, upstream: Upstream
) -> None:
    """Nobody knows whether the token was spent: it is not shown, so it does not look stolen."""
    async with chat() as (site, _), window(browser) as context:
        tab = await tab_on(context, site.url)
        await tab.say("one")
        await tab.begin(play(silent=True))

        async def asked() -> bool:
            return len(await upstream.books()) == 2

        await eventually(asked)
        await tab.page.reload()
        await tab.ready()
        await tab.say("three")
        told = (await tab.exchanges())[0]
        assert (told["status"], told["shown"]) == (200, None)


async def test_a_duplicated_tab_is_a_tab_of_its_own(
    browser: Browser, chat: Chat, redis_url: str
) -> None:
    """It is born with a copy of token and fingerprint, and uses neither: both go on unrefused."""
    async with chat() as (site, _), window(browser) as context:
        tab = await tab_on(context, site.url)
        await tab.say("one")
        twin = await duplicate(tab)
        for text in ("two", "three"):
            assert await twin.say(text) == ECHO.format(text)
            assert await tab.say(text) == ECHO.format(text)
        await require_unbroken(tab, twin)
        await twin.page.reload()
        await twin.ready()
        await twin.say("four")
        await require_unbroken(twin)
    assert chains(redis_url) == 2


async def test_even_a_twin_that_shows_the_same_token_comes_to_its_own_chain(
    browser: Browser, chat: Chat
) -> None:
    """One refusal each at most, then both go on: no loop, and no revoking of one another."""
    async with chat(reuse_grace=0) as (site, _), window(browser) as context:
        tab = await tab_on(context, site.url)
        await tab.say("one")
        await tab.page.evaluate("() => sessionStorage.setItem('keyturn:left', '1')")
        twin = await duplicate(tab)
        for text in ("two", "three", "four"):
            assert await tab.say(text) == ECHO.format(text)
            assert await twin.say(text) == ECHO.format(text)
        assert await tab.statuses() == [200, 200, 401, 200, 200]
        assert await twin.statuses() == [401, 200, 200, 200]
        assert fields(await twin.exchanges(), "remedy")[0] == "new chain"


async def duplicate(tab: Tab) -> Tab:
    """What "Duplicate tab" does: a tab of the same place with a copy of its session storage."""
    async with tab.page.expect_popup() as opened:
        await tab.page.evaluate("() => void open(location.href)")
    twin = Tab(await opened.value)
    await twin.ready()
    names = "() => Object.keys(sessionStorage).filter((name) => /token/.test(name))"
    copied = await twin.page.evaluate(names)
    assert copied == await tab.page.evaluate(names), "the control: there was something to copy"
    return twin


@pytest.mark.parametrize("locks", [True, False], ids=["with Web Locks", "without"])
async def test_tabs_over_one_storage_share_a_chain(
    browser: Browser, chat: Chat, redis_url: str, *, locks: bool
) -> None:
    """Turn by turn across tabs; without locks all are answered all the same."""
    async with chat(max_streams_per_chain=100) as (site, _), window(browser) as context:
        if not locks:
            await context.add_init_script(NO_LOCKS)
        tabs = [await tab_on(context, f"{site.url}/shared") for _ in range(2)]
        every = [tab.say(f"turn {turn}") for turn in range(5) for tab in tabs]
        answers = await asyncio.gather(*every)
        assert sorted(answers) == sorted(ECHO.format(f"turn {turn // 2}") for turn in range(10))
        if not locks:
            return
        told = [exchange for tab in tabs for exchange in await tab.exchanges()]
        assert fields(told, "status") == [200] * 10
        assert len({exchange["shown"] for exchange in told}) == 10, "each token is shown once"
        assert len({exchange["print"] for exchange in told}) == 1
    assert chains(redis_url) == 1


async def test_a_frame_that_may_store_nothing_sends_all_the_same(
    browser: Browser, chat: Chat
) -> None:
    """A sandbox denies storage and locks; the token lives in memory, and whoever asks queues there.

    Keyturn lets no sandbox chat (its origin is none), so here it is enough that it is asked.
    """
    async with chat() as (site, _), window(browser) as context:
        page = await context.new_page()
        await page.goto(f"{site.url}/sandbox")
        frame = page.frames[1]
        await frame.wait_for_function("() => globalThis.say")
        denied = "() => navigator.locks.request('x', () => {}).catch((error) => error.name)"
        assert await frame.evaluate(denied) == "SecurityError", "the control: there are no locks"
        await frame.evaluate("() => void say('one').catch(() => {})")
        await frame.wait_for_function("() => exchanges.length")
        assert await frame.evaluate("() => exchanges[0].remedy") == "resend"


async def test_a_page_comes_back_from_the_back_forward_cache(chat: Chat, redis_url: str) -> None:
    """The module keeps no page out of that cache, and a page that comes back goes on."""
    cached = ["--disable-back-forward-cache"]  # as Playwright would start it
    async with chat() as (site, server), async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=CHROMIUM, ignore_default_args=cached
        )
        async with window(browser) as context:
            tab = await tab_on(context, site.url)
            await tab.say("one")
            await tab.page.goto(f"{server.url}/api/health")
            await tab.page.evaluate("() => void history.back()")
            await tab.page.wait_for_function("() => globalThis.words", timeout=5000)
            assert await tab.page.evaluate("() => words") == ECHO.format("one"), "the same page"
            assert await tab.say("two") == ECHO.format("two")
            await require_unbroken(tab)
            twin = await duplicate(tab)
            await twin.say("three")
            await tab.say("three")
            await require_unbroken(tab, twin)
        await browser.close()
    assert chains(redis_url) == 2
