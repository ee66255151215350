"""The demo page in a real Chromium, however one sees, hears, holds or types."""

import re
from functools import partial

import pytest
from playwright.async_api import expect

from tests.browser.page_stage import NEEDS_CHROMIUM, OWN_KEY, Browse
from tests.browser.sight import SEEN_TEXTS, contrast, luminance
from tests.upstream import play

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


async def test_the_theme_follows_the_system_until_it_is_chosen(browse: Browse) -> None:
    """Then it is remembered, also by a reload and another tab; chosen back, it follows again."""
    ground = "() => getComputedStyle(document.documentElement).backgroundColor"
    async with browse(view={"color_scheme": "light"}) as window:

        async def is_dark() -> bool:
            dark = luminance(await window.page.evaluate(ground)) < 0.05
            checked = "true" if dark else "false"
            await expect(window.part("theme")).to_have_attribute("aria-checked", checked)
            return dark

        assert not await is_dark()
        await window.page.emulate_media(color_scheme="dark")
        assert await is_dark()
        await window.page.emulate_media(color_scheme="light")
        await window.part("theme").click()
        assert await is_dark()
        await window.page.reload()
        assert await is_dark()
        other = await window.page.context.new_page()
        await other.goto(window.origin)
        await other.emulate_media(color_scheme="light")
        await other.get_by_role("switch", name="Dark").click()
        await expect(window.part("theme")).to_have_attribute("aria-checked", "false")
        assert not await is_dark()
        await window.page.emulate_media(color_scheme="dark")
        assert await is_dark()
        assert window.faults == []


async def test_whole_answers_are_announced(browse: Browse) -> None:
    """Not each word of them: the log is silent, and one status says the answer when it is whole."""
    async with browse() as window:
        await expect(window.page.get_by_role("log", name="Conversation")).to_be_visible()
        await expect(window.part("transcript")).to_have_attribute("aria-live", "off")
        await window.ask(play(hang_after=1))
        await expect(window.page.locator(".text").last).to_have_text("word")
        await expect(window.part("transcript")).to_have_attribute("aria-busy", "true")
        await expect(window.part("announcer")).to_be_empty()
        await window.part("stop").click()
        await expect(window.part("announcer")).to_have_text("Answer: word")
        await expect(window.part("announcer")).to_have_role("status")
        await expect(window.part("transcript")).to_have_attribute("aria-busy", "false")
        headings = window.page.get_by_role("heading", level=2)
        await expect(headings).to_have_text(["You", "Assistant"])


async def test_the_first_tab_skips_to_the_message(browse: Browse) -> None:
    """A link that is seen when it is reached, and leads to where one writes."""
    async with browse() as window:
        await window.page.keyboard.press("Tab")
        skip = window.page.get_by_role("link", name="Skip to your message")
        await expect(skip).to_be_focused()
        await expect(skip).to_be_in_viewport()
        await window.page.keyboard.press("Enter")
        await expect(window.part("message")).to_be_focused()


async def test_the_box_grows_with_its_text(browse: Browse) -> None:
    """Shift+Enter adds a line; the box shows them all, up to a part of the window."""
    async with browse() as window:
        heights = []
        for lines in (1, 4, 100):
            await window.part("message").fill("\n".join("line" for _ in range(lines)))
            box = await window.part("message").bounding_box()
            assert box
            heights.append(box["height"])
        assert heights[0] < heights[1] < heights[2] < 400
        await window.part("message").fill("one")
        await window.part("message").press("Shift+Enter")
        await window.page.keyboard.type("two")
        await expect(window.part("message")).to_have_value("one\ntwo")
        await window.part("message").press("Enter")
        assert (await window.texts())[0] == "one\ntwo"


async def test_nothing_moves_for_whoever_minds(browse: Browse) -> None:
    """With reduced motion no animation runs while an answer is awaited; the control has one."""
    running = "() => document.getAnimations().length"
    for motion, moves in (("reduce", False), ("no-preference", True)):
        async with browse(view={"reduced_motion": motion}) as window:
            await window.ask(play(silent=True))
            await expect(window.page.locator(".coming")).to_be_visible()
            assert bool(await window.page.evaluate(running)) == moves
