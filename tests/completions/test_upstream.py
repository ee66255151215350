"""Upstream's refusals and failures before the first byte, as rows of the failure table.

In every row upstream is asked once, its words stay with us, and the turn ends with the token that
admits the next one.
"""

import asyncio
import socket
import time
from typing import Any

import aiohttp
import aiohttp.abc
import pytest
from aiohttp import web

from completions.charge import Meter
from completions.connections import Pool
from patience import Patience
from tests.completions.rows import SECRET, UNAVAILABLE, error, must_be, read
from tests.stage import (
    OPERATORS_KEY,
    Server,
    Upstream,
    Visitor,
    at_rest,
    eventually,
    serving,
    settings_with,
    visiting,
)
from tests.upstream import play
from tests.wire import (
    WHOLE,
    ByHand,
    asking,
    free_port,
    upstream_by_function,
)

OWN_KEY = "sk-visitor-0123456789abcdef"


REFUSALS: dict[str, tuple[dict[str, Any], int, str]] = {
    "400": ({"status": 400, "body": error()}, 502, "upstream_rejected"),
    "401": ({"status": 401, "body": error("invalid_api_key")}, 502, "upstream_rejected"),
    "402": ({"status": 402, "body": error()}, 502, "upstream_rejected"),
    "403": ({"status": 403, "body": error()}, 502, "upstream_rejected"),
    "404": ({"status": 404, "body": error("model_not_found")}, 502, "upstream_rejected"),
    "404, no JSON": ({"status": 404, "body": SECRET}, 502, "upstream_rejected"),
    "too long": (
        {"status": 400, "body": error("context_length_exceeded")},
        *(400, "upstream_rejected"),
    ),
    "refused content": (
        {"status": 400, "body": error("content_policy_violation")},
        *(400, "upstream_rejected"),
    ),
    "408": ({"status": 408, "body": error()}, 502, "upstream_unavailable"),
    "429": (
        {"status": 429, "body": error("rate_limit_exceeded"), "headers": {"Retry-After": "7"}},
        *(503, "upstream_rate_limited"),
    ),
    "500": ({"status": 500, "body": error()}, 502, "upstream_unavailable"),
    "502": ({"status": 502, "body": SECRET}, 502, "upstream_unavailable"),
    "503": (
        {"status": 503, "body": error(), "headers": {"Retry-After": "9"}},
        *(502, "upstream_unavailable"),
    ),
    "204": ({"status": 204}, 502, "upstream_unavailable"),
    "302": (
        {"status": 302, "headers": {"Location": "/v1/chat/completions"}, "body": {}},
        *(502, "upstream_unavailable"),
    ),
    "307 to itself": (
        {"status": 307, "headers": {"Location": "/v1/chat/completions"}, "body": {}},
        *(502, "upstream_unavailable"),
    ),
}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(("script", "status", "code"), REFUSALS.values(), ids=REFUSALS)
async def test_a_refusal_is_its_row_of_the_table(
    visitor: Visitor,
    server: Server,
    upstream: Upstream,
    script: dict[str, Any],
    status: int,
    code: str,
    stream: bool,
) -> None:
    """Upstream's status decides; it is asked once, and the next turn works."""
    answer = await visitor.say(play(**script), stream=stream)
    await must_be((status, code), answer)
    await eventually(lambda: at_rest(server))
    assert len(await upstream.books()) == 1
    assert (await visitor.say("next", stream=stream)).text == "next " * 3
    assert len(await upstream.books()) == 2


@pytest.mark.parametrize(
    ("said", "shown"),
    [("7", "7"), ("0", "1"), ("86400", "3600"), ("9" * 400, "3600"), ("soon", "1"), (None, "1")],
)
async def test_a_busy_upstream_says_when_to_come_back(
    visitor: Visitor, said: str | None, shown: str
) -> None:
    """Retry-After is passed on in whole seconds, from one second to one hour."""
    headers = {"Retry-After": said} if said else {}
    answer = await visitor.say(play(status=429, body=error(), headers=headers))
    assert (answer.status, answer.headers["Retry-After"]) == (503, shown)


async def test_a_kept_connection_that_breaks_is_not_asked_twice(redis_url: str) -> None:
    """A connection of the pool that dies under a POST costs that turn, and never a second POST."""
    posts = 0

    async def complete(request: web.Request) -> web.StreamResponse:
        nonlocal posts
        posts += 1
        await request.read()
        if posts == 2 and request.transport:
            request.transport.abort()
        return web.json_response(WHOLE)

    async with upstream_by_function(complete) as url:
        settings = settings_with(redis_url=redis_url, openai_base_url=url)
        async with serving(settings) as server, visiting(server) as visitor:
            answers = [await visitor.say(stream=False) for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 502, 200]
    assert posts == 3


@pytest.mark.parametrize("own_key", [False, True])
async def test_upstream_is_told_what_it_needs_and_nothing_else(
    visitor: Visitor, upstream: Upstream, own_key: bool
) -> None:
    """The headers of a request upstream: our own few, and nothing that the visitor sent."""
    headers = {"Cookie": "a=b", "User-Agent": "browser", "X-Forwarded-For": "192.0.2.1"}
    if own_key:
        headers["Authorization"] = f"Bearer {OWN_KEY}"
    assert (await visitor.say(headers=headers)).status == 200
    [entry] = await upstream.books()
    assert entry["authorization"] == f"Bearer {OWN_KEY if own_key else OPERATORS_KEY}"
    assert set(entry["headers"]) == {
        *("host", "authorization", "content-type", "content-length"),
        *("accept", "accept-encoding", "user-agent", "x-client-request-id"),
    }
    assert entry["headers"]["accept-encoding"] == "identity"
    assert entry["headers"]["user-agent"] == "keyturn"


async def test_an_own_key_has_its_own_rows(
    visitor: Visitor, server: Server, upstream: Upstream
) -> None:
    """A refused key is said to be refused; no row of an own key knows of a chain."""
    headers = {"Authorization": f"Bearer {OWN_KEY}"}
    rows = {401: (401, "byok_key_rejected"), 429: (503, "upstream_rate_limited")}
    for status, row in {**rows, 403: (502, "upstream_rejected"), 500: UNAVAILABLE}.items():
        answer = await visitor.say(play(status=status, body=error()), headers=headers)
        assert (answer.status, answer.code) == row
        assert answer.json["chain"] == "none"
        assert answer.token is None
        assert SECRET not in answer.body.decode()
    await eventually(lambda: at_rest(server))
    assert len(await upstream.books()) == 4


def nowhere() -> str:
    """The URL of a port that refuses connections."""
    return f"http://127.0.0.1:{free_port()}/v1"


@pytest.mark.parametrize("stream", [True, False])
async def test_an_upstream_that_is_not_there_costs_one_turn(redis_url: str, stream: bool) -> None:
    """A refused connection is said at once, and the chain goes on."""
    settings = settings_with(redis_url=redis_url, openai_base_url=nowhere())
    async with serving(settings) as server, visiting(server) as visitor:
        for _ in range(2):
            await must_be(UNAVAILABLE, await visitor.say(stream=stream))
        await eventually(lambda: at_rest(server))


async def test_an_upstream_that_does_not_take_connections_is_given_up(redis_url: str) -> None:
    """A connection that never comes about is a timeout, within the connect deadline."""
    with socket.socket() as full, socket.socket() as first:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        first.connect(full.getsockname())
        url = f"http://127.0.0.1:{full.getsockname()[1]}/v1"
        settings = settings_with(redis_url=redis_url, openai_base_url=url)
        patience = Patience(connect=0.3)
        async with serving(settings, patience) as server, visiting(server) as visitor:
            started = time.monotonic()
            await must_be((504, "upstream_timeout"), await visitor.say())
            assert time.monotonic() - started < 2


class Deaf(aiohttp.abc.AbstractResolver):
    """A name server that does not answer."""

    async def resolve(self, *_: Any, **__: Any) -> Any:
        """Wait without end."""
        await asyncio.Event().wait()

    async def close(self) -> None:
        """Nothing is open."""


async def test_looking_the_name_up_is_part_of_connecting() -> None:
    """A name server that does not answer ends with the connect deadline; the control waits on."""
    url, limit = "http://upstream.example/v1", aiohttp.ClientTimeout(sock_connect=0.2)
    pool = Pool(connections=1, patience=Patience(connect=0.2), resolver=Deaf())
    connector = aiohttp.TCPConnector(resolver=Deaf())
    async with aiohttp.ClientSession(connector=connector, timeout=limit) as session:
        control = asyncio.ensure_future(session.post(url))
        with pytest.raises(TimeoutError):
            await pool.post(url, {}, b"", Meter())
        await asyncio.wait({control}, timeout=0.5)
        assert not control.done()
        control.cancel()
        with pytest.raises(asyncio.CancelledError):
            await control
    await pool.close()


@pytest.mark.parametrize("error", [None, False, ""])
async def test_an_answer_that_says_there_was_no_error_is_none(visitor: Visitor, error: Any) -> None:
    """`"error": null` beside a whole answer is a way to say that all is well; else it is one."""
    answer = await visitor.say(play(body={**WHOLE, "error": error}), stream=False)
    assert (answer.status, answer.json["error"]) == (200, error)
    await must_be(UNAVAILABLE, await visitor.say(play(body={**WHOLE, "error": {}}), stream=False))


@pytest.mark.parametrize("stream", [True, False])
async def test_a_turn_has_an_end_before_its_first_byte(
    redis_url: str, hand: ByHand, stream: bool
) -> None:
    """Past MAX_STREAM_SECONDS an upstream that drips headers is given up, and closed."""
    settings = settings_with(redis_url=redis_url, openai_base_url=hand.url, max_stream_seconds=1)
    async with serving(settings) as server, visiting(server) as visitor:
        async with asking(visitor, stream=stream) as asked:
            call = await hand.call()
            await call.say_raw(b"HTTP/1.1 200 OK\r\nX-Drip: ")
            while not asked.done():
                await call.say_raw(b".")
                await asyncio.wait({asked}, timeout=0.1)
            await must_be((504, "upstream_timeout"), await read(asked))
            assert await call.closed(0.5)
        await eventually(lambda: at_rest(server))
