"""The demo page in a real Chromium: with an own key, when the money is gone or before."""

import json
import re

import pytest
import redis
from playwright.async_api import expect

from tests.attacks.canaries import dump, hits
from tests.browser.page_stage import (
    FIELDS,
    NEEDS_CHROMIUM,
    OWN_KEY,
    STORAGE,
    Browse,
    messages_of,
    spend_all,
)
from tests.stage import OPERATORS_KEY, Upstream
from tests.upstream import play

pytestmark = [NEEDS_CHROMIUM, pytest.mark.asyncio(loop_scope="module")]

ONE_CENT = {"daily_budget_usd": "0.01"}
NO_MONEY = {"daily_budget_usd": "0"}


@pytest.mark.parametrize("whose", ["daily_budget_usd", "visitor_daily_budget_usd"])
async def test_with_an_own_key_the_same_conversation_goes_on(
    browse: Browse, upstream: Upstream, other_upstream: Upstream, whose: str
) -> None:
    """The refused message and all before it go by the own key, and so do later ones."""
    async with browse(**{whose: "0.01"}) as window:
        before = await spend_all(window)
        await window.ask("third")
        await window.give(OWN_KEY)
        await window.require_texts(*before, "third", "third third third")
        await expect(window.part("own-key")).to_be_hidden()
        await expect(window.part("own-key-pays")).to_be_visible()
        await window.chat("fourth")
        assert window.faults == []
    third, fourth = await other_upstream.books()
    assert messages_of(third) == [*before, "third"]
    assert messages_of(fourth) == [*before, "third", "third third third", "fourth"]
    assert {entry["authorization"] for entry in (third, fourth)} == {f"Bearer {OWN_KEY}"}
    assert len(await upstream.books()) == 2, "the operator pays for nothing more"


async def test_back_to_the_sites_budget(
    browse: Browse, redis_url: str, upstream: Upstream, other_upstream: Upstream
) -> None:
    """Whoever goes back goes on in the chain that was left, and neither way shows the other's."""
    async with browse(**ONE_CENT) as window:
        before = await spend_all(window)
        await window.ask("third")
        await window.give(OWN_KEY)
        await window.require_texts(*before, "third", "third third third")
        await window.part("site-again").click()
        await expect(window.part("message")).to_be_focused()
        await expect(window.part("own-key-pays")).to_be_hidden()
        await expect(window.part("status")).to_contain_text("your key is forgotten")
        with redis.Redis.from_url(redis_url) as operator:
            operator.hset("keyturn:{main}:control", "cap", 10_000_000)
        await window.chat("fourth")
        assert window.faults == []
        _, _, refused, own, again = [await turn.all_headers() for turn in window.turns]
    assert own["authorization"] == f"Bearer {OWN_KEY}"
    assert again["authorization"] == refused["authorization"], "a refused turn spent no token"
    assert again["keyturn-fingerprint"] == refused["keyturn-fingerprint"]
    assert not [name for name in own if re.match("keyturn-|idempotency-key|cookie", name)]
    fourth = (await upstream.books())[2]
    assert messages_of(fourth) == [*before, "third", "third third third", "fourth"]
    assert fourth["authorization"] == f"Bearer {OPERATORS_KEY}"
    assert len(await other_upstream.books()) == 1


@pytest.mark.parametrize(
    ("said", "zone", "shown", "status", "code"),
    [
        ({"daily_budget_usd": "0"}, "Asia/Kolkata", "05:30", 503, "budget_exhausted"),
        ({"visitor_daily_budget_usd": "0"}, "UTC", "00:00", 429, "budget_visitor"),
    ],
    ids=["the day's", "the visitor's"],
)
async def test_the_visitor_is_told_when_the_budget_is_reset(
    browse: Browse, said: dict[str, str], zone: str, shown: str, status: int, code: str
) -> None:
    """Midnight UTC is said as the visitor's own clock shows it, and that a key would help."""
    async with browse(view={"timezone_id": zone}, **said) as window:
        await window.ask("hello")
        await expect(window.part("status")).to_contain_text(f"at {shown}, within ")
        await expect(window.part("status")).to_contain_text("your own OpenAI key")
        answer = await window.turns[0].response()
        assert answer
        assert (answer.status, (await answer.json())["code"]) == (status, code)
        assert window.faults == []


async def test_where_own_keys_are_off_none_is_asked_for(browse: Browse, upstream: Upstream) -> None:
    """With BYOK=off the reset is said, no key is mentioned, and the message waits in the box."""
    async with browse(byok="off", **NO_MONEY) as window:
        await window.ask("hello")
        await expect(window.part("status")).to_contain_text("at 05:30, within ")
        await expect(window.part("message")).to_have_value("hello")
        await expect(window.part("message")).to_be_focused()
        await expect(window.part("own-key")).to_be_hidden()
        assert "key" not in await window.part("status").inner_text()
        assert window.faults == []
    assert await upstream.books() == []


async def test_a_refused_key_is_asked_for_again(browse: Browse, other_upstream: Upstream) -> None:
    """A key that upstream refuses is forgotten, in words; the next one finds all that was said."""
    refused = play(status=401, body={"error": {"message": "no", "code": "invalid_api_key"}})
    async with browse(**ONE_CENT) as window:
        before = await spend_all(window)
        await window.ask(refused)
        await window.give("sk-of-somebody-else")
        await expect(window.part("status")).to_contain_text("Your API key was refused.")
        await expect(window.part("own-key-pays")).to_be_hidden()
        await expect(window.part("key")).to_be_focused()
        await expect(window.part("key")).to_have_value("")
        await expect(window.part("message")).to_have_value(refused)
        assert await window.texts() == before
        await window.part("message").fill("third")
        await window.give(OWN_KEY)
        await window.require_texts(*before, "third", "third third third")
        assert window.faults == []
    first, second = await other_upstream.books()
    assert (first["authorization"], messages_of(first)) == (
        "Bearer sk-of-somebody-else",
        [*before, refused],
    )
    assert (second["authorization"], messages_of(second)) == (
        f"Bearer {OWN_KEY}",
        [*before, "third"],
    )


async def test_what_is_no_key_is_not_sent(browse: Browse) -> None:
    """It could be taken for a token, or break the header: words, and the field once more."""
    async with browse(**NO_MONEY) as window:
        await window.ask("hello")
        for typed in ("", "hello", "sk-", "sk-a b", "sk-кириллица", "SK-abc", "sk-" + "a" * 510):
            await window.give(typed)
            await expect(window.part("status")).to_contain_text("This is no OpenAI key")
            await expect(window.part("key")).to_be_focused()
            await expect(window.part("key")).to_have_attribute("aria-invalid", "true")
        assert len(window.turns) == 1
        await window.give(f"  {OWN_KEY} ")
        await window.require_texts("hello", "hello hello hello ")
        assert len(window.turns) == 2
        assert window.faults == []


async def test_the_key_is_nowhere(browse: Browse, redis_url: str) -> None:
    """No storage, no markup, no cookie, no address, no console, no Redis; reloaded, it is gone."""
    async with browse(**ONE_CENT) as window:
        before = await spend_all(window)
        await window.ask("third")
        await window.give(OWN_KEY)
        await window.require_texts(*before, "third", "third third third")
        kept = await window.page.context.storage_state(indexed_db=True)
        places = {
            "storage": json.dumps(kept) + await window.page.evaluate(STORAGE),
            "markup": await window.page.content(),
            "fields": await window.page.evaluate(FIELDS),
            "address": window.page.url,
            "console": "\n".join(window.console),
            "redis": dump(redis_url).decode(errors="replace"),
        }
        key = {"own key": OWN_KEY}
        assert [name for name, place in places.items() if hits(key, place.encode())] == []
        assert kept["cookies"] == []
        kinds = {"storage": "keyturn:token:", "markup": "third third third", "redis": ":chain:"}
        for name, kind in kinds.items():
            assert kind in places[name], "the control: what is there is found"
        await window.open()
        await window.ask("again")
        await expect(window.part("own-key")).to_be_visible()
        await expect(window.part("own-key-pays")).to_be_hidden()
        assert OWN_KEY not in str(await window.turns[-1].all_headers())


async def test_a_key_can_be_given_at_any_time(
    browse: Browse, upstream: Upstream, other_upstream: Upstream
) -> None:
    """Not only when the money is gone; the models are then those of own keys, and back again."""
    async with browse(allowed_models="gpt-4o-mini,gpt-4.1-mini", byok_models="gpt-4.1") as window:
        toggle = window.part("own-key-toggle")
        await expect(toggle).to_have_attribute("aria-expanded", "false")
        await toggle.click()
        await expect(toggle).to_have_attribute("aria-expanded", "true")
        await toggle.click()
        await expect(window.part("own-key")).to_be_hidden()
        await window.part("model").select_option("gpt-4o-mini")
        await toggle.click()
        await window.give(OWN_KEY)
        await expect(toggle).to_be_hidden()
        await expect(window.part("model")).to_be_hidden()
        await window.chat("first")
        await window.part("site-again").click()
        await expect(window.part("model")).to_have_value("gpt-4.1-mini")
        await window.chat("second")
        assert window.faults == []
    (own,), (site,) = await other_upstream.books(), await upstream.books()
    assert (own["body"]["model"], own["authorization"]) == ("gpt-4.1", f"Bearer {OWN_KEY}")
    assert (site["body"]["model"], site["authorization"]) == (
        "gpt-4.1-mini",
        f"Bearer {OPERATORS_KEY}",
    )


async def test_where_own_keys_are_off_none_can_be_given(browse: Browse) -> None:
    """With BYOK=off nothing on the page speaks of one."""
    async with browse(byok="off") as window:
        await window.chat("first")
        await expect(window.part("own-key-toggle")).to_be_hidden()
