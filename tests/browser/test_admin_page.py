"""The operator's page in a real Chromium: what is seen, and what comes of what is pressed."""

import re
from contextlib import ExitStack

import pytest
import redis
from playwright.async_api import Browser, expect

from tests.browser.admin_stage import Desk, desk_at, desk_of
from tests.browser.page_stage import NEEDS_CHROMIUM
from tests.browser.sight import SEEN_TEXTS, contrast, luminance
from tests.browser.test_page_for_all import PHONE
from tests.history_stage import NAMES, fill_day
from tests.operator_stage import TOKEN, operating, settings_for
from tests.stage import Upstream, eventually, redis_process, serving, visiting

pytestmark = [NEEDS_CHROMIUM, pytest.mark.asyncio(loop_scope="module")]


async def test_a_session_begins_with_the_token(
    browser: Browser, redis_url: str, upstream: Upstream
) -> None:
    """A wrong one is said to be; the right one opens the page, also after a reload; out is out."""
    async with (
        serving(settings_for(redis_url, upstream)) as server,
        desk_at(browser, server.url) as desk,
    ):
        await expect(desk.part("board")).to_be_hidden()
        await desk.part("token").fill("wrong")
        await desk.part("token").press("Enter")
        await expect(desk.part("status")).to_have_text("This is not the token.")
        await expect(desk.part("token")).to_be_focused()
        await expect(desk.part("token")).to_have_value("")
        await desk.log_in()
        await expect(desk.part("login")).to_be_hidden()
        cookies = await desk.page.context.cookies()
        assert [(each.get("httpOnly"), each.get("sameSite")) for each in cookies] == [
            (True, "Strict")
        ]
        kept = await desk.page.evaluate(
            "() => JSON.stringify([document.cookie, {...localStorage}, {...sessionStorage}])"
        )
        assert TOKEN not in kept
        assert await desk.page.evaluate("() => document.cookie") == ""
        await desk.page.reload()
        await expect(desk.part("as-of")).to_contain_text("As of")
        await desk.part("log-out").click()
        await expect(desk.part("status")).to_have_text("You are logged out.")
        await expect(desk.part("token")).to_be_focused()
        await desk.page.reload()
        await expect(desk.part("login")).to_be_visible()
        assert desk.faults == []


async def test_the_curves_are_of_what_happens(
    browser: Browser, redis_url: str, upstream: Upstream
) -> None:
    """Turns and refusals of a visitor appear by themselves, in UTC, and as a table."""
    async with desk_of(browser, settings_for(redis_url, upstream)) as (desk, server):
        figure = desk.page.locator("figure").filter(has_text="Refusals by reason")
        await expect(figure).to_contain_text("Nobody was refused in this time.")
        async with visiting(server) as visitor:
            assert (await visitor.say()).status == 200
            assert (await visitor.say(n=2)).code == "unsupported_parameter"
        await desk.look_again()
        await expect(figure.locator(".legend")).to_contain_text("unsupported_parameter")
        await figure.locator("summary").click()
        table = figure.get_by_role("table", name="Refusals by reason")
        await expect(table.get_by_role("columnheader")).to_have_text(
            ["UTC", "unsupported_parameter"]
        )
        counts = await table.get_by_role("cell").all_text_contents()
        assert sorted(counts) == ["0"] * 59 + ["1"]
        times = table.get_by_role("rowheader")
        await expect(times.first).to_have_text(re.compile(r"^\d\d:\d\d$"))
        turns = desk.page.locator("figure").filter(has_text="Turns")
        await expect(turns.locator(".legend")).to_contain_text("answered")
        await expect(desk.part("visitors")).to_contain_text("Visitor (1 today)")
        await expect(desk.part("refused")).to_contain_text("unsupported_parameter")
        assert desk.faults == []


async def test_what_is_pressed_is_done(
    browser: Browser, redis_url: str, upstream: Upstream
) -> None:
    """Pause and resume, a cap and back, block and unblock, and the end of all chats."""
    async with (
        desk_of(browser, settings_for(redis_url, upstream)) as (desk, server),
        visiting(server) as visitor,
    ):
        assert (await visitor.say()).status == 200
        await desk.part("pause").click()
        await expect(desk.part("admissions")).to_have_text("Paused")
        await expect(desk.part("resume")).to_be_focused()
        assert (await visitor.say()).code == "paused"
        await desk.part("resume").press("Enter")
        await expect(desk.part("admissions")).to_have_text("Open")
        assert (await visitor.say()).status == 200

        await desk.part("cap").fill("0")
        await desk.part("cap").press("Enter")
        await expect(desk.part("admissions")).to_have_text("Nothing is left")
        assert (await visitor.say()).code == "budget_exhausted"
        await desk.part("cap").fill("much")
        await desk.part("cap").press("Enter")
        await expect(desk.part("status")).to_contain_text("should be US dollars")
        await desk.part("cap-back").click()
        await expect(desk.part("admissions")).to_have_text("Open")

        top = desk.part("visitors")
        await top.get_by_role("button", name=re.compile("^End chats of")).click()
        await expect(desk.part("status")).to_have_text("One chat is ended.")
        assert (await visitor.say()).code == "chain_revoked"
        await top.get_by_role("button", name=re.compile("^Block")).click()
        await expect(desk.part("blocked")).to_contain_text("UTC")
        visitor.token = None
        assert (await visitor.say()).code == "visitor_blocked"
        await desk.part("blocked").get_by_role("button", name=re.compile("^Unblock")).click()
        await expect(desk.part("blocked")).to_contain_text("Nobody is blocked.")
        assert (await visitor.say()).status == 200

        await desk.part("revoke").fill("not-one.of-our-own-tokens")
        await desk.part("revoke").press("Enter")
        await expect(desk.part("status")).to_contain_text("none that could be used")
        await expect(desk.part("board")).to_be_visible()  # and so is the session
        await desk.part("revoke").fill(str(visitor.token))
        await desk.part("revoke").press("Enter")
        await expect(desk.part("status")).to_have_text("One chat is ended.")
        assert (await visitor.say()).code == "chain_revoked"
        assert desk.faults == []


async def test_a_session_that_ended_is_said_to_have(
    browser: Browser, redis_url: str, upstream: Upstream
) -> None:
    """The page does not go on showing old figures as if they were new: it asks for the token."""
    async with desk_of(browser, settings_for(redis_url, upstream)) as (desk, _):
        await desk.page.context.clear_cookies()
        await expect(desk.part("status")).to_have_text("Your session has ended: log in again.")
        await expect(desk.part("board")).to_be_hidden()
        await expect(desk.part("token")).to_be_focused()
        await desk.log_in()
        await expect(desk.part("board")).to_be_visible()
        assert desk.faults == []


async def test_it_says_that_redis_is_away(browser: Browser, upstream: Upstream) -> None:
    """What is seen is said to be from before; nobody logs in; and the page says why."""
    with ExitStack() as stack:
        settings = settings_for(stack.enter_context(redis_process()), upstream)
        async with (
            desk_of(browser, settings) as (desk, server),
            desk_at(browser, server.url) as other,
        ):
            stack.close()
            await expect(desk.part("status")).to_contain_text("Redis cannot be read")
            await expect(desk.part("status")).to_contain_text("What you see is from before.")
            await expect(desk.part("board")).to_be_visible()
            await desk.part("pause").click()
            await expect(desk.part("status")).to_contain_text("cannot")
            await expect(desk.part("admissions")).to_have_text("Open")
            await other.part("token").fill(TOKEN)
            await other.part("token").press("Enter")
            await expect(other.part("status")).to_contain_text("cannot check this request now")
            assert desk.faults == other.faults == []


async def test_it_says_that_the_server_is_away(
    browser: Browser, redis_url: str, upstream: Upstream
) -> None:
    """And goes on by itself when it is there again."""
    settings = settings_for(redis_url, upstream)
    async with desk_of(browser, settings) as (desk, server):
        await desk.page.context.set_offline(True)
        await expect(desk.part("status")).to_contain_text("The server does not answer.")
        await desk.page.context.set_offline(False)
        await expect(desk.part("status")).to_be_empty()
        assert server.url == desk.origin
        assert [fault for fault in desk.faults if "ERR_INTERNET_DISCONNECTED" not in fault] == []


async def test_a_page_that_is_not_seen_does_not_ask(
    browser: Browser, redis_url: str, upstream: Upstream
) -> None:
    """It asks every few seconds while it is seen, and at once when it is seen again."""
    asked: list[str] = []
    async with desk_of(browser, settings_for(redis_url, upstream)) as (desk, _):
        desk.page.on("request", lambda request: asked.append(request.url))

        async def asks() -> bool:
            return any(url.endswith("/state") for url in asked)

        await eventually(asks)
        await be_seen(desk, seen=False)
        await eventually(lambda: is_quiet(desk))
        asked.clear()
        await desk.page.wait_for_timeout(4000)  # longer than it waits between two looks
        assert asked == []
        await be_seen(desk, seen=True)
        await eventually(asks)


async def be_seen(desk: Desk, *, seen: bool) -> None:
    """Have the browser tell the page whether it is seen."""
    await desk.page.evaluate(
        """(hidden) => {
          Object.defineProperty(document, 'hidden', { value: hidden, configurable: true });
          document.dispatchEvent(new Event('visibilitychange'));
        }""",
        not seen,
    )


async def is_quiet(desk: Desk) -> bool:
    """Whether nothing that was asked is unanswered."""
    await desk.page.wait_for_load_state("networkidle")
    return True


async def test_a_keyboard_is_enough(browser: Browser, redis_url: str, upstream: Upstream) -> None:
    """From the login to the last button, by Tab and Enter alone; the first Tab skips ahead."""
    fill_day(redis_url)
    async with (
        serving(settings_for(redis_url, upstream)) as server,
        desk_at(browser, server.url) as desk,
    ):
        keyboard = desk.page.keyboard
        await expect(desk.part("token")).to_be_focused()
        await keyboard.type(TOKEN)
        await keyboard.press("Enter")
        await expect(desk.part("visitors").get_by_role("table")).to_be_visible()
        await desk.page.reload()
        await expect(desk.part("visitors").get_by_role("table")).to_be_visible()
        seen = []
        for _ in range(60):
            await keyboard.press("Tab")
            focused = await desk.page.evaluate(
                "() => document.activeElement.id || document.activeElement.textContent.trim()"
            )
            seen.append(focused)
            if focused == "revoke":
                break
        assert {"theme", "log-out", "pause", "cap", "block", "revoke", "Block"} <= set(seen)
        assert sum(name.startswith("As a table") for name in seen) == 5
        assert seen[0] == "Skip to what is now"
        assert desk.faults == []


async def test_what_has_the_focus_keeps_it(
    browser: Browser, redis_url: str, upstream: Upstream
) -> None:
    """Though the tables are made anew every few seconds, and others come before it."""
    fill_day(redis_url)
    async with desk_of(browser, settings_for(redis_url, upstream)) as (desk, _):
        button = desk.part("visitors").get_by_role("button", name=f"Block {NAMES[1]}")
        await button.focus()
        with redis.Redis.from_url(redis_url) as store:
            (key,) = store.keys(f"*spend:*:{NAMES[2]}")
            store.hset(key, "spent", 400_000)
        await desk.look_again()
        first = desk.part("visitors").get_by_role("rowheader").first
        await expect(first).to_have_text(NAMES[2])
        await expect(button).to_be_focused()


async def test_a_phone_shows_all_of_it(
    browser: Browser, redis_url: str, upstream: Upstream
) -> None:
    """At 360 px nothing lies beside the window, and a finger finds every button."""
    fill_day(redis_url)
    async with desk_of(browser, settings_for(redis_url, upstream), **PHONE) as (desk, _):
        await expect(desk.part("refused").get_by_role("table")).to_be_visible()
        assert await desk.page.evaluate("() => document.documentElement.scrollWidth") == 360
        for shown in await desk.page.locator("button:visible, input:visible").all():
            box = await shown.bounding_box()
            kind = await shown.get_attribute("type")
            assert box
            assert kind == "radio" or box["height"] >= 44, "a finger finds it"
        plot = await desk.page.locator(".uplot").first.bounding_box()
        assert plot
        assert plot["x"] + plot["width"] <= 360


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_all_texts_can_be_read(
    browser: Browser, redis_url: str, upstream: Upstream, scheme: str
) -> None:
    """By day and by night every text stands out from its ground by 4.5, every curve by 3."""
    fill_day(redis_url)
    async with desk_of(browser, settings_for(redis_url, upstream), color_scheme=scheme) as (
        desk,
        _,
    ):
        await expect(desk.part("refused").get_by_role("table")).to_be_visible()
        texts = await desk.page.evaluate(SEEN_TEXTS)
        grounds = [ground for _, _, ground in texts]
        curves = await desk.page.evaluate(
            "() => [...document.querySelectorAll('.swatch')].map((e) => getComputedStyle(e).color)"
        )
        ground = await desk.page.evaluate(
            "() => getComputedStyle(document.documentElement).backgroundColor"
        )
    assert [text for text in texts if contrast(text[1], text[2]) < 4.5] == []
    assert len(curves) >= 10
    assert min(contrast(curve, ground) for curve in curves) >= 3
    assert (min(map(luminance, grounds)) < 0.05) == (scheme == "dark")


async def test_nothing_changes_when_it_is_not_asked_for(
    browser: Browser, redis_url: str, upstream: Upstream
) -> None:
    """To look decides nothing: the log has no line of a decision, and Redis no control."""
    settings = settings_for(redis_url, upstream)
    async with desk_of(browser, settings) as (desk, server), operating(server) as operator:
        await expect(desk.part("blocked")).to_contain_text("Nobody is blocked.")
        assert (await operator.look("state"))["paused"] is False
    with redis.Redis.from_url(redis_url) as store:
        assert store.keys("*control") == store.keys("*blocked") == []
