"""POST /api/chat: a visitor's own key, in and out as plain text."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from openai import AsyncOpenAI, InternalServerError
from starlette.applications import Starlette
from starlette.responses import StreamingResponse
from starlette.routing import Route

from patience import Patience
from tests.in_loop import serving_app
from tests.own_key_stage import CHAT, JSON, OWN_KEY, ask, cut_text, own_body
from tests.stage import Upstream, Visitor, serving, settings_with, visiting
from tests.upstream import play

HEADERS_OF_OURS = {
    *("content-type", "cache-control", "x-accel-buffering", "x-content-type-options"),
    *("ratelimit", "ratelimit-policy", "x-request-id", "vary", "date", "transfer-encoding"),
    "server",  # the stage's uvicorn; `python server.py` sends none
}


async def test_the_answer_is_plain_text(visitor: Visitor, upstream: Upstream) -> None:
    """The text of all chunks is the body: UTF-8, never cached, and no token comes with it."""
    answer = await ask(visitor, "wörld 👋")
    assert (answer.status, answer.body.decode()) == (200, "wörld 👋 " * 3)
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert answer.headers["Cache-Control"] == "no-store, no-transform"
    assert answer.headers["X-Accel-Buffering"] == "no"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.token is None
    assert [entry["ended"] for entry in await upstream.books()] == ["done"]


async def test_upstream_is_asked_for_exactly_this(visitor: Visitor, upstream: Upstream) -> None:
    """Body and headers that leave are ours alone, whatever the visitor sent along."""
    body = own_body("b", developer_message="a", chat_history=[{"role": "ai", "content": "c"}])
    strange = {**JSON, "OpenAI-Organization": "org-x", "Cookie": "a=b", "X-Other": "y"}
    assert (await visitor.post(body, strange, CHAT)).status == 200
    (entry,) = await upstream.books()
    assert entry["body"] == {
        "model": "gpt-4.1-mini",
        "messages": [
            {"role": "developer", "content": "a"},
            {"role": "assistant", "content": "c"},
            {"role": "user", "content": "b"},
        ],
        "stream": True,
        "max_completion_tokens": 1024,
    }
    entry["headers"].pop("content-length")
    assert entry["headers"] == {
        "host": upstream.url.split("/")[2],
        "authorization": f"Bearer {OWN_KEY}",
        "content-type": "application/json",
        "accept": "text/event-stream",
        "accept-encoding": "identity",
        "user-agent": "keyturn",
    }


async def test_no_header_of_upstream_is_passed_on(visitor: Visitor) -> None:
    """The answer's headers are made here: no cookie, no organisation, no id of upstream's."""
    theirs = {"Set-Cookie": "a=b", "OpenAI-Organization": "org-x", "X-Request-Id": "theirs-123"}
    answer = await ask(visitor, play(headers=theirs))
    assert {name.lower() for name in answer.headers} <= HEADERS_OF_OURS
    assert answer.headers["X-Request-Id"] != "theirs-123"


async def test_a_text_arrives_before_the_next_is_written(
    visitor: Visitor, upstream: Upstream
) -> None:
    """Chunk by chunk: with one word written and the rest held back, that word is here."""
    body = own_body(play(words=5, text="first ", hang_after=1))
    async with visitor.session.post(visitor.url + CHAT, data=body, headers=JSON) as answer:
        assert await asyncio.wait_for(answer.content.readany(), 5) == b"first "
        (entry,) = await upstream.books()
        assert (entry["chunks"], entry["ended"]) == (1, "open")
        with pytest.raises(TimeoutError):  # the control: whoever wants all of it waits
            await asyncio.wait_for(answer.read(), 0.3)


async def test_parallel_turns_keep_their_keys_apart(visitor: Visitor, upstream: Upstream) -> None:
    """One client serves all, and yet each turn goes by the key that came with it."""
    script = [play(words=1, text=f"{n}", hold_ms=50) for n in range(40)]
    turns = (ask(visitor, said, api_key=f"sk-own-{n}") for n, said in enumerate(script))
    answers = await asyncio.gather(*turns)
    assert [answer.body.decode() for answer in answers] == [f"{n}" for n in range(40)]
    seen = {e["body"]["messages"][0]["content"]: e["authorization"] for e in await upstream.books()}
    assert seen == {said: f"Bearer sk-own-{n}" for n, said in enumerate(script)}


BROKEN: dict[str, dict[str, Any]] = {
    "reset": {"reset_after": 2},
    "an error frame": {"error_after": 2},
    "an end without a reason": {"words": 2, "finish": False, "done": False},
    "no JSON": {"raw": ["data: {oops\n\n"]},
    "no chunk": {"raw": ['data: {"id":1}\n\n']},
    "a number": {"raw": ["data: 3\n\n"]},
    "null": {"raw": ["data: null\n\n"]},
    "content of another kind": {"raw": ['data: {"choices":[{"delta":{"content":{}}}]}\n\n']},
    "choices of another kind": {"raw": ['data: {"choices":[3]}\n\n']},
    "nested too deep": {"raw": ["data: ", *["[" * 2000] * 4, "\n\n"]},
    "no UTF-8": {"raw": ["data: \udcff\udcfe\n\n"]},
    "nothing": {"raw": []},
}


@pytest.mark.parametrize("script", BROKEN.values(), ids=BROKEN.keys())
async def test_a_failure_in_the_middle_cuts_the_connection(
    visitor: Visitor, script: dict[str, Any]
) -> None:
    """Text that broke off is never taken for the whole: the end of the body is missing."""
    status, text, cut = await cut_text(visitor, own_body(play(text="w", **script)))
    assert (status, cut) == (200, True)
    assert text in (b"", b"ww")
    assert b"secret" not in text


async def test_a_plain_generator_would_look_complete(upstream: Upstream) -> None:
    """The control: a generator that stops at the same failure ends its body well."""

    async def words() -> AsyncIterator[str]:
        async with AsyncOpenAI(api_key="sk-x", base_url=upstream.url, max_retries=0) as client:
            message: Any = {"role": "user", "content": play(text="w", error_after=2)}
            chunks = await client.chat.completions.create(
                model="m", messages=[message], stream=True
            )
            try:
                async for chunk in chunks:
                    yield chunk.choices[0].delta.content or ""
            except Exception:
                return

    async def chat(_: Any) -> StreamingResponse:
        return StreamingResponse(words(), media_type="text/plain")

    naive = Starlette(routes=[Route(CHAT, chat, methods=["POST"])])
    async with serving_app(naive) as url, visiting(url) as visitor:
        assert await cut_text(visitor, own_body()) == (200, b"ww", False)


@pytest.mark.parametrize(
    ("script", "status", "code"),
    [
        ({"status": 401, "body": {"error": {"code": "invalid_api_key"}}}, 401, "byok_key_rejected"),
        ({"status": 401, "body": "no object"}, 401, "byok_key_rejected"),
        ({"status": 429, "body": {"error": {}}}, 503, "upstream_rate_limited"),
        (
            {"status": 400, "body": {"error": {"code": "context_length_exceeded"}}},
            400,
            "upstream_rejected",
        ),
        ({"status": 400, "body": {"error": {"code": ["?"]}}}, 502, "upstream_rejected"),
        ({"status": 403, "body": {"error": {"code": "no"}}}, 502, "upstream_rejected"),
        ({"status": 404, "body": {"error": {"code": "model_not_found"}}}, 502, "upstream_rejected"),
        ({"status": 408, "body": {}}, 502, "upstream_unavailable"),
        ({"status": 500, "body": {"error": {}}}, 502, "upstream_unavailable"),
        ({"status": 503, "body": {}}, 502, "upstream_unavailable"),
        ({"status": 302, "body": {}, "headers": {"Location": "/x"}}, 502, "upstream_unavailable"),
        ({"status": 304}, 502, "upstream_unavailable"),
        ({"status": 201, "body": {}}, 502, "upstream_unavailable"),
        ({"body": {"choices": []}}, 502, "upstream_unavailable"),
        ({"headers": {"Content-Encoding": "gzip"}}, 502, "upstream_unavailable"),
    ],
)
async def test_a_refusal_of_upstream_is_a_row_of_the_table(
    visitor: Visitor, upstream: Upstream, script: dict[str, Any], status: int, code: str
) -> None:
    """Each refusal has its status and code, no chain, no token, and no word of upstream's."""
    if isinstance(script.get("body"), dict):
        script["body"].setdefault("error", {})["message"] = f"Incorrect API key: {OWN_KEY}"
    answer = await ask(visitor, play(**script))
    assert (answer.status, answer.code) == (status, code)
    assert answer.json["chain"] == "none"
    assert answer.token is None
    assert b"Incorrect" not in answer.body
    assert OWN_KEY.encode() not in answer.body
    assert len(await upstream.books()) == 1, "nothing is asked twice"


async def test_the_sdk_by_itself_asks_three_times(upstream: Upstream) -> None:
    """The control: with the SDK's defaults one failing turn is three POSTs."""
    async with AsyncOpenAI(api_key="sk-x", base_url=upstream.url) as client:
        message: Any = {"role": "user", "content": play(status=500, body={})}
        with pytest.raises(InternalServerError):
            await client.chat.completions.create(model="m", messages=[message])
    assert len(await upstream.books()) == 3


async def test_upstreams_wait_is_told(visitor: Visitor) -> None:
    """`Retry-After` of upstream's 429 is passed on, as a number and within reason."""
    limited = {"status": 429, "body": {}}
    answer = await ask(visitor, play(**limited, headers={"Retry-After": "7"}))
    assert answer.headers["Retry-After"] == "7"
    answer = await ask(visitor, play(**limited, headers={"Retry-After": "9" * 20}))
    assert answer.headers["Retry-After"] == "3600"


@asynccontextmanager
async def impatient(redis_url: str, url: str, **said: Any) -> AsyncIterator[Visitor]:
    """A visitor of a server that waits a third of a second at most."""
    settings = settings_with(redis_url=redis_url, byok_base_url=url, **said)
    patience = Patience(silence=0.3, connect=0.3)
    async with serving(settings, patience) as server, visiting(server) as visitor:
        yield visitor


async def test_a_silent_upstream_is_a_timeout(redis_url: str, upstream: Upstream) -> None:
    """Silence before the first byte is 504, silence in the middle cuts the text."""
    async with impatient(redis_url, upstream.url) as visitor:
        answer = await ask(visitor, play(silent=True))
        assert (answer.status, answer.code) == (504, "upstream_timeout")
        assert answer.json["chain"] == "none"
        assert len(await upstream.books()) == 1, "nothing is asked twice"
        assert await cut_text(visitor, own_body(play(hang_after=1))) == (200, b"word ", True)


async def test_a_turn_has_an_end(redis_url: str, upstream: Upstream) -> None:
    """An upstream that drips for ever is cut at the end of MAX_STREAM_SECONDS."""
    async with impatient(redis_url, upstream.url, max_stream_seconds=1) as visitor:
        begun = time.monotonic()
        _, text, cut = await cut_text(visitor, own_body(play(words=10_000, gap_ms=50)))
        assert cut
        assert text
        assert 0.9 < time.monotonic() - begun < 2.5


async def test_an_absent_upstream_is_told(redis_url: str, upstream: Upstream) -> None:
    """Where nothing listens the answer is 502, and no other upstream is asked."""
    async with impatient(redis_url, "http://127.0.0.1:1/v1") as visitor:
        answer = await ask(visitor)
        assert (answer.status, answer.code) == (502, "upstream_unavailable")
    assert await upstream.books() == []


async def test_an_endless_error_is_not_read_to_its_end(redis_url: str) -> None:
    """Of an error's body a part is read, though the SDK would read all of it."""
    written = 0

    async def flood(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        writer.write(b"HTTP/1.1 500 No\r\nContent-Length: 999999999\r\n\r\n")
        try:
            while written < 100_000_000:
                writer.write(b"x" * 65536)
                await writer.drain()
                written += 65536
        except ConnectionError:
            pass
        finally:
            writer.transport.abort()

    upstream = await asyncio.start_server(flood, "127.0.0.1", 0)
    async with upstream:
        url = f"http://127.0.0.1:{upstream.sockets[0].getsockname()[1]}/v1"
        async with impatient(redis_url, url) as visitor:
            assert (await ask(visitor)).code == "upstream_unavailable"
            assert written < 20_000_000
            written = 0
            async with AsyncOpenAI(api_key="sk-x", base_url=url, max_retries=0) as client:
                with pytest.raises((InternalServerError, httpx2.HTTPError)):  # the control
                    await client.chat.completions.create(model="m", messages=[], stream=True)
            assert written >= 100_000_000


async def test_cookies_are_not_kept(visitor: Visitor, upstream: Upstream) -> None:
    """What upstream sets for one visitor is not sent with the next one's request."""
    setting = play(headers={"Set-Cookie": "session=of-another-visitor; Path=/"})
    await ask(visitor, setting)
    await ask(visitor)
    assert all("cookie" not in entry["headers"] for entry in await upstream.books())
    await upstream.forget()
    async with httpx2.AsyncClient() as naive:  # the control
        for content in (setting, "hello"):
            said = {"messages": [{"content": content}]}
            await naive.post(f"{upstream.url}/chat/completions", json=said)
    assert "of-another-visitor" in (await upstream.books())[1]["headers"]["cookie"]
