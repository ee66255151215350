"""Whoever pays with an own key still keeps the limits: size, origin, rate, streams, guesses."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from tests.own_key_stage import (
    CHAT,
    JSON,
    OWN_KEY,
    ask,
    by_bearer,
    complete,
    own_body,
)
from tests.stage import Answer, Upstream, Visitor, eventually, serving, settings_with, visiting
from tests.upstream import play

REFUSED = play(status=401, body={"error": {"code": "invalid_api_key"}}, hold_ms=50)
ROUTES = pytest.mark.parametrize("ask_there", [ask, complete], ids=["/api/chat", "/v1"])


@asynccontextmanager
async def visiting_with(redis_url: str, upstream: Upstream, **said: Any) -> AsyncIterator[Visitor]:
    """A visitor of a server with these settings."""
    settings = settings_with(redis_url=redis_url, byok_base_url=upstream.url, **said)
    async with serving(settings) as server, visiting(server) as visitor:
        yield visitor


async def post(visitor: Visitor, body: bytes = b"", **headers: str) -> Answer:
    """POST /api/chat with these headers (underscores stand for hyphens)."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await visitor.post(body or own_body(), {**JSON, **named}, CHAT)


@ROUTES
async def test_own_keys_can_be_switched_off(
    redis_url: str, upstream: Upstream, ask_there: Any
) -> None:
    """`BYOK=off` refuses own keys on both routes, and nobody is asked by any key."""
    async with visiting_with(redis_url, upstream, byok="off", openai_base_url=upstream.url) as who:
        answer = await ask_there(who)
        assert (answer.status, answer.code) == (403, "byok_disabled")
        assert await upstream.books() == []
        assert (await who.say()).status == 200  # the control: the operator's key still works


async def test_a_body_has_a_limit_of_its_own(redis_url: str, upstream: Upstream) -> None:
    """BYOK_MAX_BODY_BYTES holds on /api/chat, to the byte, whatever length was declared."""
    body = own_body("hi")
    async with visiting_with(
        redis_url, upstream, byok_max_body_bytes=len(body), max_body_bytes=10
    ) as visitor:
        assert (await post(visitor, body)).status == 200
        assert (await post(visitor, body + b" ")).code == "payload_too_large"

        async def in_pieces() -> AsyncIterator[bytes]:
            for _ in range(10):
                yield body

        async with visitor.session.post(
            visitor.url + CHAT, data=in_pieces(), headers=JSON
        ) as answer:
            assert answer.status == 413


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=utf-16"]
)
async def test_only_json_is_read(visitor: Visitor, upstream: Upstream, kind: str) -> None:
    """Forms and plain text, which any page may send without asking, are refused."""
    assert (await post(visitor, Content_Type=kind)).code == "unsupported_media_type"
    assert await upstream.books() == []


async def test_every_page_may_use_it_by_default(visitor: Visitor) -> None:
    """BYOK_ALLOWED_ORIGINS is `*`: a page of any origin may read answers and refusals."""
    answer = await post(visitor, Origin="https://anywhere.example")
    assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (200, "*")
    answer = await post(visitor, b"{", Origin="https://anywhere.example")
    assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (400, "*")


async def test_listed_pages_may_use_it(redis_url: str, upstream: Upstream) -> None:
    """Where origins are listed no other page may chat, nor read the refusal."""
    async with visiting_with(
        redis_url, upstream, byok_allowed_origins="https://mine.example"
    ) as visitor:
        answer = await post(visitor, Origin="https://mine.example")
        assert answer.headers["Access-Control-Allow-Origin"] == "https://mine.example"
        for other in ("https://mine.example.evil", "https://page.example", "null"):
            answer = await post(visitor, Origin=other)
            assert (answer.status, answer.code) == (403, "origin_forbidden")
            assert "Access-Control-Allow-Origin" not in answer.headers
        assert len(await upstream.books()) == 1


@ROUTES
async def test_the_address_rate_holds(redis_url: str, upstream: Upstream, ask_there: Any) -> None:
    """With an own key one may not ask more often than without."""
    async with visiting_with(redis_url, upstream, rate_limit="3/minute") as visitor:
        answers = [await ask_there(visitor) for _ in range(4)]
        assert [answer.status for answer in answers] == [200, 200, 200, 429]
        assert [answer.headers["RateLimit"][:13] for answer in answers[:3]] == [
            f'"address";r={left}' for left in (2, 1, 0)
        ]
        assert answers[3].code == "rate_limited"
        assert 1 <= int(answers[3].headers["Retry-After"]) <= 20
        assert len(await upstream.books()) == 3


@ROUTES
async def test_streams_in_flight_are_counted(
    redis_url: str, upstream: Upstream, ask_there: Any
) -> None:
    """No more answers at a time than without a key; one that ended makes room."""
    async with visiting_with(redis_url, upstream, max_streams_per_ip=2) as visitor:
        running = [asyncio.create_task(ask_there(visitor, play(hang_after=1))) for _ in "ab"]

        async def both() -> bool:
            return [entry["chunks"] for entry in await upstream.books()] == [1, 1]

        await eventually(both)
        refusal = await ask_there(visitor)
        assert (refusal.status, refusal.code) == (429, "too_many_streams")
        running.pop().cancel()

        async def room() -> bool:
            return bool((await ask_there(visitor)).status == 200)

        await eventually(room, limit=2)
        running.pop().cancel()


@ROUTES
async def test_rejected_keys_are_limited(
    redis_url: str, upstream: Upstream, ask_there: Any
) -> None:
    """After so many keys that upstream refused nothing is tried for a while, on either route."""
    async with visiting_with(redis_url, upstream, byok_reject_limit="3/hour") as visitor:
        for _ in range(3):
            assert (await ask_there(visitor)).status == 200  # a good key costs nothing
            answer = await ask_there(visitor, REFUSED)
            assert (answer.status, answer.code) == (401, "byok_key_rejected")
        asked = len(await upstream.books())
        for ask_anywhere in (ask, complete):
            answer = await ask_anywhere(visitor)
            assert (answer.status, answer.code) == (429, "rate_limited")
            assert 1000 < int(answer.headers["Retry-After"]) <= 1200
        assert len(await upstream.books()) == asked
        assert (await visitor.say("hi")).code != "rate_limited"  # the operator's key is not meant


async def test_without_that_limit_keys_could_be_tried(redis_url: str, upstream: Upstream) -> None:
    """The control: under a limit that never fills every guess reaches upstream."""
    async with visiting_with(redis_url, upstream, byok_reject_limit="100000/hour") as visitor:
        for _ in range(12):
            assert (await ask(visitor, REFUSED)).code == "byok_key_rejected"
        assert len(await upstream.books()) == 12


async def test_rejected_keys_are_limited_in_parallel_too(
    redis_url: str, upstream: Upstream
) -> None:
    """Guesses sent at once get no further than the limit and the streams that one may have."""
    async with visiting_with(
        redis_url, upstream, byok_reject_limit="5/hour", max_streams_per_ip=4
    ) as visitor:
        for _ in range(6):
            await asyncio.gather(
                *(ask(visitor, REFUSED, api_key=f"sk-guess-{n}") for n in range(20))
            )
        assert 5 <= len(await upstream.books()) <= 5 + 3


async def test_each_address_has_its_own_guesses(redis_url: str, upstream: Upstream) -> None:
    """Whoever spoils it for himself does not spoil it for others."""
    async with visiting_with(
        redis_url, upstream, byok_reject_limit="1/hour", trusted_proxies="127.0.0.1"
    ) as visitor:
        for address, code in (("203.0.113.7", "rate_limited"), ("203.0.113.8", None)):
            await post(visitor, own_body(REFUSED), X_Forwarded_For="203.0.113.7")
            assert (await post(visitor, X_Forwarded_For=address)).code == code


async def test_a_malformed_key_is_no_guess(redis_url: str, upstream: Upstream) -> None:
    """What upstream never saw does not count as refused by it."""
    async with visiting_with(redis_url, upstream, byok_reject_limit="1/hour") as visitor:
        for _ in range(5):
            assert (await ask(visitor, api_key="sk-é")).code == "byok_key_malformed"
        assert (await ask(visitor)).status == 200


async def test_other_methods_are_refused(visitor: Visitor) -> None:
    """Only POST is taken, and `Allow` says so."""
    async with visitor.session.get(visitor.url + CHAT) as answer:
        assert (answer.status, answer.headers["Allow"]) == (405, "POST")


async def test_a_dead_store_lets_nobody_in(upstream: Upstream) -> None:
    """Without Redis no limit could be kept, so own keys do not pass either."""
    settings = settings_with(redis_url="unix:///nowhere/s", byok_base_url=upstream.url)
    async with serving(settings) as server, visiting(server) as visitor:
        for ask_there in (ask, complete):
            answer = await ask_there(visitor)
            assert (answer.status, answer.code) == (503, "store_unavailable")
        assert await upstream.books() == []


async def test_the_key_stands_in_no_address_bar(visitor: Visitor, upstream: Upstream) -> None:
    """A key in the query is not looked at: queries end up in everybody's logs."""
    timeout = aiohttp.ClientTimeout(total=10)
    body = own_body()[:-1].replace(OWN_KEY.encode(), b"") + b"}"
    url = f"{visitor.url}{CHAT}?api_key={OWN_KEY}"
    async with visitor.session.post(url, data=body, headers=JSON, timeout=timeout) as answer:
        assert answer.status == 422
    headers = {"Authorization": by_bearer()["Authorization"]}
    assert (await post(visitor, body, **headers)).status == 422
    assert await upstream.books() == []
