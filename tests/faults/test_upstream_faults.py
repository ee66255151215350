"""Upstream fails in every way: it is asked once for each turn, and money stays right."""

import json
from collections.abc import AsyncIterator

import aiohttp
import pytest
from openai import AsyncOpenAI, InternalServerError

from patience import Patience
from tests.faults.figures import ASKED, UNCHARGED, Figures, as_many
from tests.faults.money_stage import PRICES
from tests.money.books import total
from tests.money.settlement_stage import money
from tests.stage import Server, Upstream, Visitor, at_rest, eventually, serving, settings_with
from tests.upstream import play

CHATS = as_many(2, 5)
FAULTS = {
    "500": play(status=500),
    "429": play(status=429, headers={"Retry-After": "3"}),
    "hangs before its head": play(silent=True),
    "hangs in its answer": play(words=9, hang_after=3),
    "resets at once": play(words=9, reset_after=0),
    "resets in its answer": play(words=9, reset_after=3),
    "an error in its answer": play(words=9, error_after=3),
    "no end": play(words=9, finish=False, done=False, usage=False),
    "truncated": play(raw=['data: {"id":"c","choices":[{"index":0,"delta":{"content":"w']),
    "garbage": play(raw=["<html>\x00", "data: }{\n\n", "\n\n\n"]),
    "another type": play(body={"hello": "world"}),
}


@pytest.fixture
async def server(redis_url: str, upstream: Upstream) -> AsyncIterator[Server]:
    """Keyturn that waits for upstream as long as a test can."""
    settings = settings_with(redis_url=redis_url, openai_base_url=upstream.url)
    async with serving(settings, Patience(silence=0.5)) as server:
        yield server


@pytest.mark.parametrize("fault", FAULTS)
async def test_upstream_is_asked_once_and_money_is_right(
    server: Server,
    visitor: Visitor,
    upstream: Upstream,
    redis_url: str,
    figures: Figures,
    fault: str,
) -> None:
    """Each chat is one POST, each goes on by its next token, and no less is charged than billed."""
    for _ in range(CHATS):
        visitor.token = None
        assert (await visitor.say()).status == 200
        await failing_turn(visitor, FAULTS[fault])
        assert (await visitor.say()).status == 200, "the next token goes on"
    await eventually(lambda: at_rest(server))
    books = await upstream.books()
    figures.note(ASKED, len(books) / (3 * CHATS))
    charged = money(redis_url)
    bill = total(books, PRICES)
    figures.note(UNCHARGED, max(0, bill - charged.spent))
    print(f"{fault}: {len(books)} POSTs, billed {bill}, charged {charged.spent}")
    assert len(books) == 3 * CHATS
    assert (charged.held, charged.holds) == (0, ())
    assert bill <= charged.spent


async def failing_turn(visitor: Visitor, script: str) -> None:
    """A turn that fails upstream; what goes on with the chain is told before or with it."""
    body, headers = visitor.body(script), visitor.headers()
    async with visitor.session.post(visitor.url + visitor.path, data=body, headers=headers) as got:
        visitor.token = got.headers["Keyturn-Token"]
        try:
            said = await got.read()
        except aiohttp.ClientError:
            said = b""
    assert b'"error"' in said or got.status != 200
    assert b"[DONE]" not in said


async def test_by_its_defaults_the_sdk_asks_three_times(
    upstream: Upstream, figures: Figures
) -> None:
    """The control: on a 500 the usual client of a proxy repeats a POST that may be billed."""
    async with AsyncOpenAI(api_key="sk-x", base_url=upstream.url) as client:
        with pytest.raises(InternalServerError):
            await client.chat.completions.create(
                model="gpt-4.1-mini", messages=[{"role": "user", "content": FAULTS["500"]}]
            )
    figures.note(ASKED, len(await upstream.books()), control=True)
    assert len(await upstream.books()) == 3


async def test_who_charges_what_usage_says_charges_too_little(
    upstream: Upstream, visitor: Visitor, figures: Figures
) -> None:
    """The control: a proxy that adds up the usage it is told misses what never told any."""
    async with aiohttp.ClientSession() as session:
        told = 0
        for script in FAULTS["resets in its answer"], FAULTS["no end"]:
            body = json.loads(visitor.body(script, model="gpt-4.1-mini"))
            async with session.post(f"{upstream.url}/chat/completions", json=body) as answer:
                try:
                    told += (await answer.read()).count(b'"completion_tokens"')
                except aiohttp.ClientError:
                    continue
    bill = total(await upstream.books(), PRICES)
    figures.note(UNCHARGED, bill, control=True)
    assert told == 0
    assert bill > 0
