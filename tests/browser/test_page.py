"""The demo page in a real Chromium: a conversation, and what can be done with it."""

from functools import partial

import pytest
from playwright.async_api import expect

from tests.browser.page_stage import (
    NEEDS_CHROMIUM,
    OWN_KEY,
    Browse,
    Window,
    messages_of,
    spend_all,
)
from tests.stage import OPERATORS_KEY, Upstream, eventually
from tests.upstream import play

pytestmark = [NEEDS_CHROMIUM, pytest.mark.asyncio(loop_scope="module")]

CLIPBOARD = {"permissions": ["clipboard-read", "clipboard-write"]}
PASTE = "() => navigator.clipboard.readText()"
MARKDOWN = "# Tea\n\n```js\nbrew(1);\n```\n\n- black\n"
ENDLESS = play(hang_after=1)


async def test_the_page_chats(browse: Browse, upstream: Upstream) -> None:
    """Messages are answered in one conversation, nobody else is asked, nothing is amiss."""
    async with browse() as window:
        await window.chat("first")
        await window.chat("second")
        assert await window.texts() == [
            *("first", "first first first"),
            *("second", "second second second"),
        ]
        await expect(window.part("own-key")).to_be_hidden()
        assert window.faults == []
    one, two = await upstream.books()
    assert messages_of(one) == ["first"]
    assert messages_of(two) == ["first", "first first first", "second"]
    assert {entry["authorization"] for entry in (one, two)} == {f"Bearer {OPERATORS_KEY}"}


async def test_an_answer_can_be_stopped(browse: Browse, other_upstream: Upstream) -> None:
    """What came stays, the chat goes on: by the site's budget, and by an own key."""
    async with browse(daily_budget_usd="0.01") as window:
        await window.ask(ENDLESS)
        await window.stop_after("word")
        said = await spend_all(window)
        assert said[:2] == [ENDLESS, "word"]
        await window.ask(ENDLESS)
        await window.give(OWN_KEY)
        await window.stop_after("word")
        await window.chat("third")
        await window.require_texts(*said, ENDLESS, "word", "third", "third third third")
        assert window.faults == []
    stopped, third = await other_upstream.books()
    assert stopped["ended"] == "closed"
    assert messages_of(third) == [*said, ENDLESS, "word", "third"]


async def test_escape_stops(browse: Browse, upstream: Upstream) -> None:
    """So does the Escape key; a message without a word of answer is back in the box."""
    async with browse() as window:
        await window.ask(ENDLESS)
        await expect(window.page.locator(".text").last).to_have_text("word")
        await window.page.keyboard.press("Escape")
        await expect(window.part("status")).to_have_text("Stopped.")
        await window.part("message").fill("and a draft")
        await window.ask(play(silent=True))

        async def asked() -> bool:
            return len(await upstream.books()) == 2

        await eventually(asked)
        await window.part("message").fill("a draft")
        await window.page.keyboard.press("Escape")
        await expect(window.part("status")).to_have_text("Stopped.")
        await expect(window.part("message")).to_have_value(play(silent=True) + "\na draft")
        assert await window.texts() == [ENDLESS, "word"]
        assert window.faults == []


async def test_the_last_answer_can_be_had_again(browse: Browse, upstream: Upstream) -> None:
    """Retry asks the same once more: the new answer stands in the place of the old one."""
    async with browse() as window:
        await window.chat("first")
        await window.chat("second")
        await expect(window.action("Retry", of=1)).to_be_hidden()
        await window.action("Retry").click()

        async def asked() -> bool:
            return len(await upstream.books()) == 3

        await eventually(asked)
        await window.require_texts(
            *("first", "first first first", "second", "second second second")
        )
        assert window.faults == []
    _, second, third = await upstream.books()
    assert messages_of(third) == messages_of(second)


async def test_a_retry_that_fails_loses_nothing(browse: Browse, upstream: Upstream) -> None:
    """Refused or stopped before a word came, the old answer is there again."""
    async with browse(daily_budget_usd="0.01") as window:
        said = await spend_all(window)
        await window.action("Retry").click()
        await expect(window.part("status")).to_contain_text("has no room")
        assert await window.texts() == said
        await window.give(OWN_KEY)
        await window.require_texts(*said)
        assert window.faults == []
    assert len(await upstream.books()) == 2


async def test_an_earlier_message_can_be_changed(browse: Browse, upstream: Upstream) -> None:
    """The conversation goes on from there; a draft in the box waits meanwhile."""
    async with browse() as window:
        await window.chat("first")
        await window.chat("second")
        await window.part("message").fill("a draft")
        await window.action("Edit", of=0).click()
        await expect(window.part("message")).to_be_focused()
        await expect(window.part("message")).to_have_value("first")
        await expect(window.page.locator(".goes")).to_have_count(4)
        await window.ask("another")
        await window.require_texts("another", "another another another")
        await expect(window.part("message")).to_have_value("a draft")
        await expect(window.part("editing")).to_be_hidden()
        assert window.faults == []
    assert messages_of((await upstream.books())[-1]) == ["another"]


async def test_a_change_can_be_dropped(browse: Browse) -> None:
    """By its button or by Escape: the message stays, the draft comes back."""
    async with browse() as window:
        await window.chat("first")
        await window.part("message").fill("a draft")
        for drop in (window.part("keep").click, partial(window.page.keyboard.press, "Escape")):
            await window.action("Edit", of=0).click()
            await window.part("message").fill("something else")
            await drop()
            await expect(window.part("message")).to_have_value("a draft")
            await expect(window.part("editing")).to_be_hidden()
        await window.require_texts("first", "first first first")


async def test_a_change_that_fails_loses_nothing(browse: Browse) -> None:
    """Refused, the old conversation stands, and the new words are still being written."""
    async with browse(daily_budget_usd="0.01", byok="off") as window:
        said = await spend_all(window)
        await window.part("message").fill("a draft")
        await window.action("Edit", of=0).click()
        await window.ask("another")
        await expect(window.part("status")).to_contain_text("has no room")
        assert await window.texts() == said
        await expect(window.part("message")).to_have_value("another")
        await expect(window.part("editing")).to_be_visible()
        await window.part("keep").click()
        await expect(window.part("message")).to_have_value("a draft")


async def test_answers_and_code_can_be_copied(browse: Browse) -> None:
    """An answer as its Markdown, a block of code as its code, a message as it was written."""
    question = play(text=MARKDOWN, words=1)
    async with browse(view=CLIPBOARD) as window:
        await window.chat(question)
        for button, copied in (
            (window.action("Copy"), MARKDOWN),
            (window.action("Copy", of=0), question),
            (window.page.locator(".code").get_by_role("button", name="Copy"), "brew(1);"),
        ):
            await button.click()
            await expect(window.page.get_by_role("button", name="Copied")).to_be_visible()
            assert await window.page.evaluate(PASTE) == copied
            await expect(window.page.get_by_role("button", name="Copied")).to_have_count(0)
        assert window.faults == []


async def test_what_cannot_be_copied_is_said(browse: Browse) -> None:
    """Where the browser forbids it, the button says what to do instead."""
    async with browse() as window:
        await window.chat("first")
        await window.page.evaluate("() => { delete Navigator.prototype.clipboard; }")
        await window.action("Copy").click()
        await expect(window.page.get_by_text("Select it and copy by hand")).to_be_visible()


async def test_a_new_chat_forgets_and_the_last_one_can_come_back(
    browse: Browse, upstream: Upstream
) -> None:
    """Nothing of the old chat is sent; until something is said it can be brought back."""
    async with browse() as window:
        await expect(window.part("new")).to_be_disabled()
        await window.chat("first")
        await window.part("new").click()
        await expect(window.part("empty")).to_be_visible()
        await expect(window.part("message")).to_be_focused()
        await window.part("last-chat").click()
        await window.require_texts("first", "first first first")
        await window.part("new").click()
        await window.chat("second")
        await window.require_texts("second", "second second second")
        assert window.faults == []
    assert messages_of((await upstream.books())[-1]) == ["second"]


async def test_a_new_chat_ends_the_answer_under_way(browse: Browse, upstream: Upstream) -> None:
    """It stops; what it said is in the chat that can come back, and in no other."""
    async with browse() as window:
        await window.ask(ENDLESS)
        await expect(window.page.locator(".text").last).to_have_text("word")
        await window.part("new").click()
        await window.chat("second")
        await window.require_texts("second", "second second second")
        await window.part("new").click()
        await window.part("last-chat").click()
        await window.require_texts("second", "second second second")
        assert window.faults == []
    stopped, second = await upstream.books()
    assert stopped["ended"] == "closed"
    assert messages_of(second) == ["second"]


async def test_a_suggestion_is_a_message(browse: Browse, upstream: Upstream) -> None:
    """One click asks it, in one line."""
    async with browse() as window:
        suggestions = window.part("suggestions").get_by_role("button")
        await expect(suggestions).to_have_count(3)
        words = " ".join((await suggestions.first.inner_text()).split())
        await suggestions.first.click()
        await expect(window.part("status")).to_be_empty()
        assert (await window.texts())[0] == words
        await expect(window.part("empty")).to_be_hidden()
    assert messages_of((await upstream.books())[0]) == [words]


async def chosen_models(window: Window, upstream: Upstream) -> list[str]:
    """The models that the site's upstream was asked for."""
    return [entry["body"]["model"] for entry in await upstream.books()]


async def test_a_model_can_be_chosen(browse: Browse, upstream: Upstream) -> None:
    """The operator's default first, then what was chosen; one model alone is no choice."""
    models = {"allowed_models": "gpt-4o-mini,gpt-4.1-mini", "default_model": "gpt-4.1-mini"}
    async with browse(**models) as window:
        await expect(window.part("model")).to_have_value("gpt-4.1-mini")
        await window.chat("first")
        await window.page.get_by_label("Model").select_option("gpt-4o-mini")
        await window.chat("second")
        assert await chosen_models(window, upstream) == ["gpt-4.1-mini", "gpt-4o-mini"]
    alone = {"allowed_models": "gpt-4o-mini", "default_model": "gpt-4o-mini"}
    async with browse(**alone) as window:
        await expect(window.part("model")).to_be_hidden()
        await window.chat("third")
        assert (await chosen_models(window, upstream))[2:] == ["gpt-4o-mini"]
