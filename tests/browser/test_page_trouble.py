"""The demo page in a real Chromium, when something goes wrong: it goes on, or says what to do."""

import re
from typing import Any

import pytest
import redis
from playwright.async_api import Browser, expect

from tests.browser.page_stage import (
    NEEDS_CHROMIUM,
    Browse,
    Window,
    fill_rate,
    messages_of,
    page_server,
    watched,
    window_on,
)
from tests.stage import Upstream, eventually, settings_with
from tests.upstream import play
from tests.wire import free_port

pytestmark = [NEEDS_CHROMIUM, pytest.mark.asyncio(loop_scope="module")]

ENDLESS = play(hang_after=1)
AN_HOUR_AHEAD = "const now = Date.now; Date.now = () => now() + 3_600_000;"


def chains(redis_url: str) -> int:
    """How many chains the store knows."""
    with redis.Redis.from_url(redis_url) as operator:
        return len(operator.keys("*:chain:*"))


async def tokens_of(window: Window) -> list[str | None]:
    """What each turn of a window showed."""
    return [(await turn.all_headers()).get("authorization") for turn in window.turns]


async def test_a_reload_keeps_the_conversation_and_the_chain(
    browse: Browse, upstream: Upstream, redis_url: str
) -> None:
    """What was said, the draft and the token are this tab's: it goes on where it was."""
    async with browse() as window:
        await window.chat("first")
        await window.part("message").fill("a draft")
        await window.page.reload()
        await window.require_texts("first", "first first first")
        await expect(window.part("message")).to_have_value("a draft")
        await window.chat("second")
        first, second = await tokens_of(window)
        assert first is None
        assert second
        assert chains(redis_url) == 1
        assert window.faults == []
    assert messages_of((await upstream.books())[-1]) == ["first", "first first first", "second"]


async def test_a_reload_keeps_what_was_under_way(browse: Browse) -> None:
    """The words that had come stay; a message without any is back in the box."""
    async with browse() as window:
        await window.ask(ENDLESS)
        await expect(window.page.locator(".text").last).to_have_text("word")
        await window.page.reload()
        await window.require_texts(ENDLESS, "word")
        await window.ask(play(silent=True))
        await expect(window.page.locator(".message")).to_have_count(4)
        await window.page.reload()
        await window.require_texts(ENDLESS, "word")
        await expect(window.part("message")).to_have_value(play(silent=True))


async def test_another_tab_is_another_visitor(browse: Browse, redis_url: str) -> None:
    """Two tabs chat in turn, each in its own conversation and chain."""
    async with browse() as one:
        other = watched(await one.page.context.new_page(), one.origin)
        await other.open()
        for text in ("first", "second"):
            await one.chat(text)
            await other.chat(text + " too")
        assert len(await one.texts()) == len(await other.texts()) == 4
        assert chains(redis_url) == 2
        shown = [token for window in (one, other) for token in await tokens_of(window) if token]
        assert len(set(shown)) == 2
        assert one.faults == other.faults == []


async def test_a_copied_tab_goes_on_by_itself(browse: Browse) -> None:
    """A tab that was opened with the other's storage, its token too: both go on without a word."""
    async with browse() as one:
        await one.chat("first")
        async with one.page.context.expect_page() as opened:
            await one.page.evaluate("() => void window.open(location.href)")
        other = watched(await opened.value, one.origin)
        await other.require_texts("first", "first first first")
        for text in ("second", "third"):
            await other.chat(text)
            await one.chat(text)
        assert len(await one.texts()) == len(await other.texts()) == 6
        assert one.faults == other.faults == []


async def test_a_clock_that_is_wrong_is_corrected(browse: Browse) -> None:
    """A device an hour ahead chats as any other: refused once, then never again."""
    async with browse() as window:
        await window.page.add_init_script(AN_HOUR_AHEAD)
        await window.open()
        await window.chat("first")
        await window.chat("second")
        answers = [await turn.response() for turn in window.turns]
        assert [answer and answer.status for answer in answers] == [401, 200, 200]
        assert window.faults == []


async def test_the_server_may_restart(
    browser: Browser, redis_url: str, upstream: Upstream, other_upstream: Upstream
) -> None:
    """What is sent meanwhile waits and is answered; the chain goes on, as the store kept it."""
    settings = settings_with(redis_url=redis_url, openai_base_url=upstream.url)
    port = free_port()
    async with page_server(settings, port) as server:
        origin = server.url
        async with window_on(browser, origin) as window:
            await window.chat("first")
            server.uvicorn.should_exit = True
            await eventually(lambda: is_gone(window))
            await window.ask("second")
            await expect(window.part("status")).to_contain_text("is sent again")
            async with page_server(settings, port):
                await window.require_texts(
                    *("first", "first first first", "second", "second second second")
                )
            assert chains(redis_url) == 1
            assert window.faults == []


async def is_gone(window: Window) -> Any:
    """Whether nobody listens where the page came from."""
    answer = "() => fetch('/v1/chat/completions', {method: 'HEAD'}).then(() => true, () => false)"
    return not await window.page.evaluate(answer)


async def test_a_store_that_forgot_begins_anew(browse: Browse, redis_url: str) -> None:
    """Flushed between two turns, the next one begins a new chain by itself."""
    async with browse() as window:
        await window.chat("first")
        with redis.Redis.from_url(redis_url) as operator:
            operator.flushall()
        await window.chat("second")
        refused, again = [await turn.response() for turn in window.turns[1:]]
        assert refused
        assert again
        assert (await refused.json())["code"] == "chain_unknown"
        assert again.status == 200
        assert chains(redis_url) == 1
        assert window.faults == []


async def test_a_wait_is_counted_down(browse: Browse, redis_url: str, upstream: Upstream) -> None:
    """Asked too often, the page says how long it waits, and sends by itself."""
    async with browse(rate_limit="20/minute") as window:
        await window.chat("first")
        fill_rate(redis_url, 3, 20, wait=3)
        await window.ask("second")
        await expect(window.part("waiting")).to_have_text(re.compile(r"^waiting [1-3] s$"))
        await expect(window.part("status")).to_contain_text("sent by itself")
        await expect(window.part("stop")).to_have_text("Cancel")
        await window.require_texts(
            *("first", "first first first", "second", "second second second")
        )
        await expect(window.part("waiting")).to_be_hidden()
        await expect(window.part("stop")).to_have_text("Stop", use_inner_text=False)
        assert window.faults == []
    assert len(await upstream.books()) == 2


async def test_a_wait_can_be_cancelled(browse: Browse, redis_url: str, upstream: Upstream) -> None:
    """Then nothing is sent, and the message is back in the box."""
    async with browse(rate_limit="20/minute") as window:
        await window.chat("first")
        fill_rate(redis_url, 3, 20, wait=20)
        await window.ask("later")
        await expect(window.part("waiting")).to_be_visible()
        await window.part("stop").click()
        await expect(window.part("status")).to_have_text("Stopped.")
        await expect(window.part("message")).to_have_value("later")
        await expect(window.part("waiting")).to_be_hidden()
        assert window.faults == []
    assert len(await upstream.books()) == 1


async def test_too_long_a_wait_is_left_to_the_visitor(browse: Browse) -> None:
    """Nobody waits for longer than half a minute: it is said when to try again."""
    async with browse(rate_limit="2/hour") as window:
        await window.chat("first")
        await window.chat("second")
        await window.ask("third")
        await expect(window.part("status")).to_contain_text("Try again in 30 minutes.")
        await expect(window.part("message")).to_have_value("third")
        assert window.faults == []


async def test_an_answer_that_breaks_off_is_said_and_kept(browse: Browse) -> None:
    """What came stays, in whatever way upstream fails; without a word the message is given back."""
    async with browse() as window:
        for broken in (play(error_after=2), play(reset_after=2), play(finish=False, words=2)):
            await window.ask(broken)
            await expect(window.part("status")).to_have_class("fault")
            await expect(window.part("status")).to_have_text(re.compile(r"^The answer broke off\."))
            assert "token" not in await window.part("status").inner_text()
            assert (await window.texts())[-2:] == [broken, "word word"]
            await expect(window.action("Retry")).to_be_visible()
        silent = play(words=0)
        await window.ask(silent)
        await expect(window.part("status")).to_have_text("The answer was empty.")
        await expect(window.part("message")).to_have_value(silent)
        assert window.faults == []


async def test_what_the_model_forgets_is_said(browse: Browse, upstream: Upstream) -> None:
    """A long chat is trimmed by the server's limit, and a line stands where memory begins."""
    async with browse(max_messages="5") as window:
        memory = window.page.locator(".memory")
        for text in ("one", "two"):
            await window.chat(text)
        await expect(memory).to_have_count(0)
        for text in ("three", "four"):
            await window.chat(text)
        await expect(memory).to_be_visible()
        after = "() => document.querySelector('.memory').nextElementSibling.innerText"
        assert "three" in await window.page.evaluate(after)
        assert window.faults == []
    assert messages_of((await upstream.books())[-1]) == [
        *("two", "two two two", "three", "three three three", "four")
    ]


async def test_too_long_a_message_is_not_sent(browse: Browse, upstream: Upstream) -> None:
    """Its characters are counted down, as the server counts them; one too many stays in the box."""
    async with browse(max_message_chars="600") as window:
        await window.part("message").fill("🗝" * 90)
        await expect(window.part("count")).to_be_hidden()
        await window.part("message").fill("🗝" * 590)
        await expect(window.part("count")).to_have_text("10 left")
        await window.ask("🗝" * 601)
        await expect(window.part("count")).to_have_text("1 too many")
        await expect(window.part("status")).to_contain_text("too long by 1 character:")
        await expect(window.part("message")).to_have_attribute("aria-invalid", "true")
        await window.chat("🗝" * 600)
        assert window.faults == []
    assert len(await upstream.books()) == 1


async def test_invisible_characters_are_left_out(browse: Browse, upstream: Upstream) -> None:
    """What no server takes would make a conversation stuck; flags and families arrive whole."""
    flag = "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"
    async with browse() as window:
        await window.chat(f"a\x07b\U000e0041{flag} 👩‍👧")
        await window.chat("second")
        assert window.faults == []
    sent = messages_of((await upstream.books())[-1])
    assert sent[0] == f"ab{flag} 👩‍👧"
    assert len(sent) == 3
