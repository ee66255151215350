"""One chain, two routes: what is spent, repeated or stolen on one of them is so on the other."""

import asyncio
import secrets
from collections import Counter
from dataclasses import replace

import pytest
import redis

from tests.attacks.test_single_use import age_chains
from tests.stage import (
    CHAT,
    RESPONSES,
    Answer,
    Upstream,
    Visitor,
    serving,
    settings_with,
    visiting,
)

BOTH_WAYS = pytest.mark.parametrize(
    ("here", "there"), [(CHAT, RESPONSES), (RESPONSES, CHAT)], ids=["to responses", "to chat"]
)


def by(visitor: Visitor, path: str) -> Visitor:
    """The same visitor, by another route."""
    return replace(visitor, path=path)


async def show(visitor: Visitor, token: str | None) -> Answer:
    """One turn with this token."""
    return await visitor.post(visitor.body(), visitor.headers(Authorization=f"Bearer {token}"))


async def test_a_chain_goes_on_across_the_routes(visitor: Visitor, upstream: Upstream) -> None:
    """Turn about, whole or as a stream: each answer's token admits the other route's turn."""
    for number in range(8):
        visitor.path = (CHAT, RESPONSES)[number % 2]
        answer = await visitor.say(stream=number % 4 < 2)
        assert (answer.status, answer.text) == (200, "hello " * 3)
    books = await upstream.books()
    assert [entry["path"] for entry in books] == [CHAT, RESPONSES] * 4


@BOTH_WAYS
async def test_a_token_spent_here_is_spent_there(
    visitor: Visitor, upstream: Upstream, here: str, there: str
) -> None:
    """Within the grace it is refused and the chain kept; later it is a thief's, on either."""
    first = (await by(visitor, here).say()).token
    second = (await show(by(visitor, here), first)).token
    again = await show(by(visitor, there), first)
    assert (again.code, again.json["chain"], again.token) == ("token_reused", "kept", None)
    third = await show(by(visitor, there), second)
    assert third.status == 200
    stolen = await show(by(visitor, there), first)
    assert (stolen.code, stolen.json["chain"]) == ("token_reused", "revoked")
    assert (await show(by(visitor, here), third.token)).code == "chain_revoked"
    assert len(await upstream.books()) == 3


async def test_of_100_parallel_uses_on_both_routes_one_is_admitted(
    visitor: Visitor, upstream: Upstream
) -> None:
    """Single use is the chain's, whichever route asks."""
    token = (await visitor.say()).token
    halves = [by(visitor, path) for path in (CHAT, RESPONSES) for _ in range(50)]
    answers = await asyncio.gather(*(show(each, token) for each in halves))
    assert Counter(answer.code or "ok" for answer in answers) == {"ok": 1, "token_reused": 99}
    assert len(await upstream.books()) == 2


@BOTH_WAYS
@pytest.mark.parametrize("turns_before", [0, 1], ids=["first turn", "follow-up"])
async def test_a_key_repeats_its_own_routes_body_only(
    visitor: Visitor, upstream: Upstream, here: str, there: str, turns_before: int
) -> None:
    """The other route's body under the same key is a conflict; the true repeat still recovers."""
    for _ in range(turns_before):
        await by(visitor, here).say()
        visitor.token = (await by(visitor, here).say()).token
    headers = visitor.headers(Idempotency_Key=secrets.token_urlsafe(16))
    body = by(visitor, here).body()
    first = await by(visitor, here).post(body, headers)
    other = await by(visitor, there).post(by(visitor, there).body(), headers)
    assert (other.status, other.code, other.json["chain"]) == (422, "idempotency_conflict", "kept")
    again = await by(visitor, here).post(body, headers)
    assert (again.code, again.token) == ("duplicate_request", first.token)
    assert first.token
    assert len(await upstream.books()) == 2 * turns_before + 1


@BOTH_WAYS
async def test_the_same_bytes_are_no_repeat_on_the_other_route(
    visitor: Visitor, upstream: Upstream, here: str, there: str
) -> None:
    """No body is good on both: the other route refuses it before the key is looked at."""
    key = secrets.token_urlsafe(16)
    body, headers = by(visitor, here).body(), visitor.headers(Idempotency_Key=key)
    assert (await by(visitor, here).post(body, headers)).status == 200
    other = await by(visitor, there).post(body, headers)
    assert other.code in ("unsupported_parameter", "invalid_request")
    assert (other.json["chain"], other.token) == ("kept", None)
    assert len(await upstream.books()) == 1


@BOTH_WAYS
async def test_a_lost_answer_goes_on_by_the_other_route(
    visitor: Visitor, here: str, there: str
) -> None:
    """The successor that a repeat hands over is the chain's, not the route's."""
    headers = visitor.headers(Idempotency_Key=secrets.token_urlsafe(16))
    body = by(visitor, here).body()
    await by(visitor, here).post(body, headers)
    recovered = (await by(visitor, here).post(body, headers)).token
    assert (await show(by(visitor, there), recovered)).status == 200


@BOTH_WAYS
async def test_a_token_stolen_there_ends_the_chain_here(
    visitor: Visitor, redis_url: str, here: str, there: str
) -> None:
    """When thief and owner have both used a token, neither gets any further on either route."""
    token = (await by(visitor, here).say()).token
    thief = await show(by(visitor, there), token)
    age_chains(redis_url, ms=11_000)
    owner = await show(by(visitor, here), token)
    assert (owner.code, owner.json["chain"]) == ("token_reused", "revoked")
    for path in (here, there):
        assert (await show(by(visitor, path), thief.token)).code == "chain_revoked"
    with redis.Redis.from_url(redis_url) as store:
        assert len(store.keys("keyturn:{main}:chain:*")) == 1


async def test_both_routes_share_the_rate_of_an_address(redis_url: str, upstream: Upstream) -> None:
    """A limit of one address is one limit, however it is spread over the routes."""
    settings = settings_with(redis_url=redis_url, openai_base_url=upstream.url, rate_limit="3/day")
    async with serving(settings) as server, visiting(server) as visitor:
        told = [(await by(visitor, (CHAT, RESPONSES)[n % 2]).say()).code for n in range(5)]
    assert told == [None, None, None, "rate_limited", "rate_limited"]
    assert len(await upstream.books()) == 3
