"""client.js on a page of another site, in a real Chromium before a real Keyturn."""

import asyncio
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import pytest
import redis
from playwright.async_api import Browser

from tests.browser.client_page import (
    Chat,
    another_site,
    fields,
    require_unbroken,
    says,
    tab_on,
    window,
)
from tests.browser.page_stage import NEEDS_CHROMIUM
from tests.stage import OPERATORS_KEY, Upstream, eventually, serving, settings_with
from tests.upstream import play

pytestmark = [NEEDS_CHROMIUM, pytest.mark.asyncio(loop_scope="module")]

ECHO = "{0} {0} {0} "
HOUR = timedelta(hours=1)


async def test_a_page_of_another_site_chats(
    browser: Browser, chat: Chat, upstream: Upstream
) -> None:
    """Under the policy that the documentation asks for, and with no key but the operator's."""
    async with chat() as (site, _), window(browser) as context:
        tab = await tab_on(context, site.url)
        assert await tab.say("one") == ECHO.format("one")
        assert await tab.say("two") == ECHO.format("two")
        await require_unbroken(tab)
        assert fields(await tab.exchanges(), "shown")[0] is None
        assert tab.faults == []
        await tab.page.evaluate("() => fetch('http://elsewhere.localhost/').catch(() => {})")
        assert "connect-src" in tab.faults[0], "the control: what is amiss would be noticed"
    books = await upstream.books()
    assert {entry["authorization"] for entry in books} == {f"Bearer {OPERATORS_KEY}"}
    assert await says(upstream) == ["one", "two"]


async def test_a_moment_without_a_network(browser: Browser, chat: Chat, upstream: Upstream) -> None:
    """What could not be sent goes out once, when the browser is online again."""
    async with chat() as (site, _), window(browser) as context:
        tab = await tab_on(context, site.url)
        await tab.say("one")
        await context.set_offline(True)
        await tab.begin("two")
        await tab.until("resend")
        await context.set_offline(False)
        async with asyncio.timeout(15):  # half of what it would wait without a word
            assert await tab.ended() == ECHO.format("two")
        first, *sent = await tab.exchanges()
        assert fields(sent, "status")[-1] == 200
        assert set(fields(sent, "shown")) == {f"Bearer {first['successor']}"}
        assert len(set(fields(sent, "key"))) == 1
    assert await says(upstream) == ["one", "two"]


async def test_a_stop_without_a_network(browser: Browser, chat: Chat, upstream: Upstream) -> None:
    """Whoever waits for the network can stop waiting, and chat on when it is there."""
    async with chat() as (site, _), window(browser) as context:
        tab = await tab_on(context, site.url)
        await context.set_offline(True)
        await tab.begin("one")
        await tab.until("resend")
        await tab.stop()
        assert await tab.ended() == "AbortError"
        await context.set_offline(False)
        assert await tab.say("two") == ECHO.format("two")
    assert await says(upstream) == ["two"]


@pytest.mark.parametrize("headers_first", [True, False], ids=["in mid-stream", "before headers"])
async def test_after_a_stop_the_chat_goes_on(
    browser: Browser, chat: Chat, upstream: Upstream, *, headers_first: bool
) -> None:
    """The next turn shows the stopped one's successor: no refusal, and upstream was hung up on."""
    script = play(hang_after=1) if headers_first else play(hold_ms=700, hang_after=1)
    async with chat() as (site, _), window(browser) as context:
        tab = await tab_on(context, site.url)
        await tab.begin(script)
        if headers_first:
            await tab.until_words("word ")
        else:
            await eventually(upstream.books)
        await tab.stop()
        assert await tab.ended() == "AbortError"
        assert await tab.say("and") == ECHO.format("and")
        await require_unbroken(tab)

        async def hung_up() -> bool:
            return bool((await upstream.books())[0]["ended"] == "closed")

        await eventually(hung_up)


@pytest.mark.parametrize("wrong", [HOUR, -HOUR], ids=["fast", "slow"])
async def test_a_clock_that_is_an_hour_off(browser: Browser, chat: Chat, wrong: timedelta) -> None:
    """The first turn is refused once and sent again; later ones are right at once."""
    async with chat() as (site, _), window(browser) as context:
        await context.clock.install(time=datetime.now(UTC) + wrong)
        tab = await tab_on(context, site.url)
        assert await tab.say("one") == ECHO.format("one")
        assert await tab.say("two") == ECHO.format("two")
        told = await tab.exchanges()
    assert fields(told, "code") == ["timestamp_stale", None, None]
    assert fields(told, "remedy") == ["right clock", None, None]


async def test_redis_that_forgot_between_two_turns(
    browser: Browser, chat: Chat, redis_url: str
) -> None:
    """The chain is unknown, so a new one is begun, and the visitor notices nothing."""
    async with chat() as (site, _), window(browser) as context:
        tab = await tab_on(context, site.url)
        await tab.say("one")
        with redis.Redis.from_url(redis_url) as operator:
            operator.flushall()
        assert await tab.say("two") == ECHO.format("two")
        told = await tab.exchanges()
    assert fields(told, "code") == [None, "chain_unknown", None]
    assert fields(told, "shown")[2] is None


async def test_a_server_that_restarts_between_two_turns(
    browser: Browser, chat: Chat, redis_url: str, upstream: Upstream
) -> None:
    """What finds nobody is sent again until somebody is there, and the chain goes on."""
    urls = {"redis_url": redis_url, "openai_base_url": upstream.url}
    async with another_site() as site, window(browser) as context:
        settings = site.may_chat(settings_with(**urls))
        async with serving(settings) as server:
            site.keyturn = server.url
            tab = await tab_on(context, site.url)
            await tab.say("one")
        await tab.begin("two")
        await tab.until("resend")
        async with serving(settings, port=urlsplit(site.keyturn).port or 0):
            assert await tab.ended() == ECHO.format("two")
        first, *rest = await tab.exchanges()
    assert set(fields(rest, "shown")) == {f"Bearer {first['successor']}"}
    assert len(set(fields(rest, "key"))) == 1
    assert await says(upstream) == ["one", "two"]


async def test_an_address_limit_is_waited_out(
    browser: Browser, chat: Chat, upstream: Upstream
) -> None:
    """Whoever asks too fast is slowed down as Retry-After says, and answered."""
    async with chat(rate_limit="2/second") as (site, _), window(browser) as context:
        tab = await tab_on(context, site.url)
        texts = [f"turn {turn}" for turn in range(7)]
        answers = await asyncio.gather(*[tab.say(text) for text in texts])
        assert answers == [ECHO.format(text) for text in texts]
        told = await tab.exchanges()
    assert {"wait"} == {one["remedy"] for one in told if one["code"] == "rate_limited"}
    assert await says(upstream) == texts
