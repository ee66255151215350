"""The wire beside the demo page, in a real Chromium: what it shows is what happened."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis
from playwright.async_api import Browser, expect
from starlette.staticfiles import StaticFiles

from problems import PROBLEMS
from tests.browser.page_stage import (
    NEEDS_CHROMIUM,
    OWN_KEY,
    Browse,
    Window,
    fill_rate,
    page_server,
    window_on,
)
from tests.browser.wire_cards import ALL, turn, until, verdicts
from tests.in_loop import serving_app
from tests.stage import Upstream, eventually, settings_with
from tests.upstream import play

pytestmark = [NEEDS_CHROMIUM, pytest.mark.asyncio(loop_scope="module")]

DESKTOP = {"viewport": {"width": 1440, "height": 900}}
PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
AN_HOUR_AHEAD = "const now = Date.now; Date.now = () => now() + 3_600_000;"


async def test_it_is_folded_away_until_asked_for(browse: Browse) -> None:
    """A side panel beside the chat on a desk; by button, by Escape, the focus goes back."""
    async with browse(view=DESKTOP) as window:
        wire, toggle = window.part("wire"), window.part("wire-toggle")
        await expect(wire).to_be_hidden()
        await toggle.click()
        await expect(wire).to_be_visible()
        await expect(toggle).to_have_attribute("aria-expanded", "true")
        await expect(window.part("message")).to_be_enabled()
        await window.chat("beside it")
        await window.part("wire-close").click()
        await expect(wire).to_be_hidden()
        await expect(toggle).to_have_attribute("aria-expanded", "false")
        await toggle.press("Enter")
        await window.page.keyboard.press("Escape")
        await expect(wire).to_be_hidden()
        await expect(toggle).to_be_focused()
        assert window.faults == []


async def test_on_a_phone_it_is_a_sheet(browse: Browse) -> None:
    """Over the chat, which cannot be reached meanwhile; within the window; Escape folds it away."""
    async with browse(view=PHONE) as window:
        await window.chat("hello")
        await window.part("wire-toggle").click()
        await expect(window.part("wire")).to_be_visible()
        box = await window.part("wire").bounding_box()
        assert box
        assert (box["x"], box["width"]) == (0, 360)
        assert box["y"] + box["height"] <= 740
        assert await window.page.evaluate("() => document.documentElement.scrollWidth") == 360
        assert await window.page.evaluate("() => document.querySelector('#wire').matches(':modal')")
        await window.page.keyboard.press("Escape")
        await expect(window.part("wire")).to_be_hidden()
        await expect(window.part("wire-toggle")).to_be_focused()
        assert window.faults == []


async def test_an_admitted_turn_is_told(browse: Browse) -> None:
    """Every check passed; how long it took; what is left, as the headers say it."""
    async with browse(rate_limit="30/minute", start_limit="60/hour") as window:
        await window.chat("first")
        await window.chat("second")
        assert await verdicts(window, 2) == dict.fromkeys(ALL, "passed")
        first, second = await turn(window, 1), await turn(window, 2)
        await expect(first).to_contain_text("New chains")
        await expect(first).to_contain_text("9 of 10 left")
        await expect(first).to_contain_text("a first turn begins a chain")
        await expect(second).not_to_contain_text("New chains")
        await expect(second).to_contain_text("never used before")
        for said in (
            r"admitted, 200",
            r"first byte \d.*first words \d.*all \d",
            r"2[89] of 30 left",
        ):
            await expect(second).to_contain_text(re.compile(said))
        answer = await window.turns[1].response()
        assert answer
        budget = (await answer.all_headers())["keyturn-budget"]
        left = int(budget.split("remaining=")[1].split(",")[0]) / 1e6
        await expect(second).to_contain_text(f"${left:.4f} of $0.50 left")
        assert window.faults == []


async def test_of_a_token_only_its_end_is_shown(browse: Browse) -> None:
    """The one that was shown and the one that came back, shortened; whole ones nowhere."""
    async with browse() as window:
        await window.part("wire-toggle").click()
        for text in ("first", "second", "third"):
            await window.chat(text)
        whole = [await came_with(each) for each in window.turns]
        turning = (await turn(window, 2)).locator(".turning")
        await expect(turning).to_have_text(f"shown …{whole[0][-6:]} → came …{whole[1][-6:]}")
        await expect((await turn(window, 1)).locator(".turning")).to_contain_text("shown none")
        markup = await window.page.content()
        assert whole[1][-6:] in markup
        assert [token for token in whole if token[-12:] in markup] == []
        assert window.faults == []


async def came_with(request: Any) -> str:
    """The token that an answer brought."""
    answer = await request.response()
    return str((await answer.all_headers())["keyturn-token"])


async def test_a_refused_turn_is_told(browse: Browse, redis_url: str) -> None:
    """Which check refused it, and that those after it were not reached."""
    async with browse(daily_budget_usd="0") as window:
        await window.ask("no money")
        await expect(window.part("status")).to_contain_text("has no room")
        assert await verdicts(window, 1) == until("Budget")
        await expect(await turn(window, 1)).to_contain_text("503 budget_exhausted")
        with redis.Redis.from_url(redis_url) as operator:
            operator.hset("keyturn:{main}:control", "paused", "1")
        await window.part("message").fill("paused")
        await window.part("send").click()
        await expect(window.part("status")).to_contain_text("has paused this chat")
        assert await verdicts(window, 2) == until("Budget")


async def test_each_cure_is_told(browse: Browse, redis_url: str) -> None:
    """A corrected clock, a new chain and a wait stand as attempts, with what was done."""
    async with browse(rate_limit="20/minute") as window:
        await window.page.add_init_script(AN_HOUR_AHEAD)
        await window.open()
        await window.chat("first")
        cured = (await turn(window, 1)).locator(".attempts li")
        await expect(cured).to_have_count(2)
        await expect(cured.first).to_contain_text("401 timestamp_stale")
        await expect(cured.first).to_contain_text("clock corrected")
        with redis.Redis.from_url(redis_url) as operator:
            operator.delete(*operator.keys("*:chain:*"))
        await window.chat("second")
        attempts = (await turn(window, 2)).locator(".attempts li")
        await expect(attempts.first).to_contain_text("401 chain_unknown")
        await expect(attempts.first).to_contain_text("new chain begun")
        fill_rate(redis_url, 3, 20, wait=3)
        await window.ask("waits")
        waiting = window.page.locator(".turn").first
        await expect(waiting.locator(".badge")).to_have_text("429 rate_limited")
        assert await verdicts(window, 3) == until("Address rate")
        await expect(waiting).to_contain_text("0 of 20 left")
        await expect(window.part("status")).to_be_empty()
        await expect(waiting.locator(".attempts")).to_contain_text("429 rate_limited")
        await expect(waiting.locator(".attempts")).to_contain_text("waited")
        assert await verdicts(window, 3) == dict.fromkeys(ALL, "passed")
        assert window.faults == []


async def test_a_shortened_answer_is_told(browse: Browse) -> None:
    """Where the budget pays for less than was asked, the card says for how much."""
    async with browse(visitor_daily_budget_usd="0.001", max_output_tokens=4096) as window:
        await window.chat("hello")
        answer = await window.turns[0].response()
        assert answer
        most = (await answer.all_headers())["keyturn-max-output"]
        await expect(await turn(window, 1)).to_contain_text(f"to {most} tokens")


async def test_an_own_key_is_told_apart(browse: Browse) -> None:
    """No token, no chain, no budget: those checks are not asked, and nothing can be replayed."""
    async with browse() as window:
        await window.part("own-key-toggle").click()
        await window.give(OWN_KEY)
        await window.chat("hello")
        asked = {"Body", "Address rate"}
        assert await verdicts(window, 1) == {
            name: "passed" if name in asked else "not asked" for name in ALL
        }
        card = await turn(window, 1)
        await expect(card.locator(".replay")).to_have_count(0)
        await expect(card.locator(".turning")).to_have_count(0)
        assert OWN_KEY[-6:] not in await window.page.content()


async def copied_lines(window: Window) -> str:
    """The lines that the wire has for other pages, by its button."""
    await window.part("wire-toggle").click()
    await window.page.get_by_text("The lines your page needs").click()
    bar = window.part("manual").locator(".code-bar").first
    await bar.get_by_role("button", name="Copy").click()
    await expect(bar.get_by_role("button", name="Copied")).to_be_visible()
    return str(await window.page.evaluate("() => navigator.clipboard.readText()"))


async def test_the_lines_for_another_page_work(
    browser: Browser, redis_url: str, upstream: Upstream, tmp_path: Path
) -> None:
    """Copied from the wire into a page of another origin, they chat."""
    settings = settings_with(redis_url=redis_url, openai_base_url=upstream.url)
    clipboard = {"permissions": ["clipboard-read", "clipboard-write"]}
    page = tmp_path / "index.html"
    async with (
        serving_app(StaticFiles(directory=tmp_path, html=True)) as elsewhere,
        page_server(settings) as server,
        window_on(browser, server.url, **clipboard) as window,
    ):
        await expect(window.part("sdk-lines")).to_contain_text(f"{server.url}/v1")
        page.write_text(f"<body>{await copied_lines(window)}")
        allowed = settings.model_copy(update={"allowed_origins": (elsewhere,)})
        server.app.state.keyturn = replace(server.keyturn, settings=allowed)
        other = await window.page.context.new_page()
        await other.goto(elsewhere)
        await expect(other.locator("body")).to_contain_text("Hello Hello Hello")


async def test_a_broken_wire_does_not_break_the_chat(browse: Browse) -> None:
    """A turn that got no answer at all is told as such."""
    async with browse() as window:
        await window.page.route("**/v1/chat/completions", lambda route: route.abort())
        await window.ask(play(words=1))
        await expect((await turn(window, 1)).locator(".badge")).to_have_text("no answer")
        await expect(window.part("message")).to_have_value(play(words=1))


async def test_a_stopped_turn_still_tells_of_its_token(browse: Browse, upstream: Upstream) -> None:
    """What comes late stands in the card of the turn it belongs to, not in the next one's."""
    async with browse() as window:
        await window.ask(play(hold_ms=1500))

        async def is_on_its_way() -> bool:
            return len(await upstream.books()) == 1

        await eventually(is_on_its_way)
        await window.page.keyboard.press("Escape")
        await expect(window.part("status")).to_have_text("Stopped.")
        await expect((await turn(window, 1)).locator(".badge")).to_have_text("stopped")
        await window.part("message").fill("")
        await window.chat("second")
        for number in (1, 2):
            card = await turn(window, number)
            await expect(card.locator(".badge")).to_have_text("admitted, 200")
            await expect(card.locator(".attempts")).to_have_count(0)
        label = (await window.turns[1].all_headers())["x-request-id"]
        await expect(await turn(window, 2)).to_contain_text(label)
        assert window.faults == []


WHERE = """async (answers) => {
  const { verdicts } = await import('/checks.js');
  return Object.fromEntries(answers.map(([code, status, token]) => {
    const headers = new Headers(token ? { 'Keyturn-Token': 'x' } : {});
    const found = verdicts({ status, headers }, code);
    const refused = found.find((check) => check.verdict === 'refused');
    return [code, refused?.name ?? found.filter((check) => check.verdict === 'passed').length];
  }));
}"""


async def test_every_refusal_has_its_place(shared: Window) -> None:
    """Each row of the failure table that a turn can meet stands at the check that makes it."""
    follows = {"upstream_rejected", "upstream_rate_limited", "upstream_timeout"}
    follows |= {"upstream_unavailable", "duplicate_request"}
    handing_over = follows | {"chain_unknown"}  # which does after a failover
    answers = [(code, row.status, code in handing_over) for code, row in PROBLEMS.items()]
    found = await shared.page.evaluate(WHERE, answers)
    before_all = {"not_found", "method_not_allowed", "unsupported_media_type", "headers_too_large"}
    before_all |= {"header_repeated", "origin_forbidden", "internal_error", "operator_only"}
    expected: dict[str, Any] = dict.fromkeys(before_all, 0)
    expected |= dict.fromkeys(follows - {"duplicate_request"}, len(ALL))
    expected |= {"byok_key_rejected": len(ALL), "overloaded": ALL.index("Address rate")}
    for name, codes in {
        "Timestamp": "timestamp_missing timestamp_malformed timestamp_stale",
        "Fingerprint": "fingerprint_missing fingerprint_malformed fingerprint_mismatch "
        "token_malformed token_forged token_expired",
        "Body": "request_timeout payload_too_large malformed_json unsupported_parameter "
        "invalid_request byok_disabled byok_key_malformed",
        "Address rate": "visitor_blocked rate_limited start_limited store_unavailable",
        "One-time token": "chain_unknown chain_revoked token_reused duplicate_request "
        "idempotency_conflict",
        "Budget": "too_many_streams budget_visitor budget_exhausted paused",
    }.items():
        expected |= dict.fromkeys(codes.split(), name)
    assert found == expected
