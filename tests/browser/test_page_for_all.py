"""The demo page in a real Chromium, however one sees, hears, holds or types."""

import re
from functools import partial

import pytest
from playwright.async_api import expect

from tests.browser.page_stage import NEEDS_CHROMIUM, OWN_KEY, Browse
from tests.browser.sight import SEEN_TEXTS, contrast, luminance

pytestmark = [NEEDS_CHROMIUM, pytest.mark.asyncio(loop_scope="module")]

NO_MONEY = {"daily_budget_usd": "0"}
PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}


async def test_the_field_gives_nothing_away(browse: Browse) -> None:
    """A password's dots, a label, no memory, no spelling service; and what becomes of the key."""
    async with browse(**NO_MONEY) as window:
        await window.ask("hello")
        field = window.page.get_by_label("Your own OpenAI key")
        await expect(field).to_be_focused()
        for name, value in (
            ("type", "password"),
            ("autocomplete", "off"),
            ("spellcheck", "false"),
            ("autocapitalize", "off"),
        ):
            await expect(field).to_have_attribute(name, value)
        await expect(field).to_have_accessible_description(re.compile("no room.+memory only"))
        await expect(window.part("status")).to_have_role("status")
        await expect(window.part("own-key")).to_have_accessible_name("Go on with your own key")


async def test_the_offer_can_be_declined(browse: Browse) -> None:
    """It goes, with what was typed there; the message waits in the box and brings it back."""
    async with browse(**NO_MONEY) as window:
        await window.ask("hello")
        for decline in (partial(window.part("key").press, "Escape"), window.part("not-now").click):
            await expect(window.part("key")).to_be_focused()
            await expect(window.part("key")).to_have_value("")
            await window.part("key").fill("sk-half-typed")
            await decline()
            await expect(window.part("own-key")).to_be_hidden()
            await expect(window.part("message")).to_be_focused()
            await expect(window.part("message")).to_have_value("hello")
            await window.part("message").press("Enter")
        await expect(window.part("key")).to_be_focused()
        await window.part("key").fill("sk-half-typed")
        await window.part("message").press("Enter")
        await expect(window.part("key")).to_have_value("")
        await expect(window.part("key")).to_be_focused()
        assert len(window.turns) == 4


async def test_a_keyboard_is_enough(browse: Browse) -> None:
    """From the first message to the way back, by Tab, Enter and letters alone."""
    async with browse(**NO_MONEY) as window:
        keyboard = window.page.keyboard

        async def tab_to(name: str) -> None:
            for _ in range(30):
                if await window.page.evaluate("() => document.activeElement.id") == name:
                    return
                await keyboard.press("Tab")
            raise AssertionError(f"{name} is not on the way")

        await tab_to("message")
        await keyboard.type("hello")
        await keyboard.press("Enter")
        await expect(window.part("key")).to_be_focused()
        await tab_to("not-now")
        await keyboard.press("Enter")
        await expect(window.part("message")).to_be_focused()
        await keyboard.press("Enter")
        await expect(window.part("key")).to_be_focused()
        await keyboard.type(OWN_KEY)
        await keyboard.press("Tab")
        await keyboard.press("Enter")
        await window.require_texts("hello", "hello hello hello")
        await expect(window.part("message")).to_be_focused()
        await tab_to("site-again")
        await keyboard.press("Enter")
        await expect(window.part("own-key-pays")).to_be_hidden()
        await expect(window.part("message")).to_be_focused()


async def test_a_phone_shows_all_of_it(browse: Browse) -> None:
    """At 360 px nothing lies beside the window: at rest, with the offer, with an own key."""
    width = "() => document.documentElement.scrollWidth"
    async with browse(view=PHONE, **NO_MONEY) as window:

        async def require_inside() -> None:
            assert await window.page.evaluate(width) == 360
            for shown in await window.page.locator("button:visible, input:visible").all():
                box = await shown.bounding_box()
                assert box
                assert box["x"] >= 0
                assert box["x"] + box["width"] <= 360
                assert box["height"] >= 44, "a finger finds it"

        await require_inside()
        await window.ask("hello" * 40)
        await expect(window.part("key")).to_be_in_viewport(ratio=1)
        await require_inside()
        await window.give(OWN_KEY)
        await expect(window.part("own-key-pays")).to_be_visible()
        await require_inside()
        await window.part("own-key-pays").evaluate("(part) => { part.style.minWidth = '400px'; }")
        assert await window.page.evaluate(width) > 360, "the control: what is too wide is seen"


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_all_texts_can_be_read(browse: Browse, scheme: str) -> None:
    """By day and by night every text stands out from its ground by 4.5 (WCAG 2.2, 1.4.3)."""
    seen: list[list[str]] = []
    async with browse(view={"color_scheme": scheme}, **NO_MONEY) as window:
        seen += await window.page.evaluate(SEEN_TEXTS)
        await window.ask("hello")
        await expect(window.part("own-key")).to_be_visible()
        seen += await window.page.evaluate(SEEN_TEXTS)
        await window.give(OWN_KEY)
        await window.require_texts("hello", "hello hello hello")
        seen += await window.page.evaluate(SEEN_TEXTS)
    assert {"Go on", "hello", "hint in key", "Use the site's budget again"} <= {s[0] for s in seen}
    assert [text for text in seen if contrast(text[1], text[2]) < 4.5] == []
    assert contrast("rgb(119, 119, 119)", "rgb(255, 255, 255)") < 4.5, "the control"
    darkest = min(luminance(ground) for _, _, ground in seen)
    assert (darkest < 0.05) == (scheme == "dark")
