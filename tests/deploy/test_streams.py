"""Through each proxy, by the configuration that deploy/ ships, a stream stays a stream."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from patience import Patience
from tests.deploy.proxy_stage import HOST, PROXIES, Changes, Proxy, needs
from tests.stage import Visitor, serving, settings_with
from tests.wire import BY_CHAT, BY_RESPONSES, ByHand, Spoken, event, streaming

each = pytest.mark.parametrize("name", [pytest.param(each, marks=needs(each)) for each in PROXIES])
HUNG_UP = 1.0  # seconds until upstream must be closed
Behind = Callable[..., AbstractAsyncContextManager[Visitor]]

# What makes each of them keep an answer back; the control of everything that streams.
BUFFERING: dict[str, Changes] = {
    "nginx": [
        ("proxy_buffering off;", "proxy_ignore_headers X-Accel-Buffering;"),
        ("gzip off;", "gzip on; gzip_types text/event-stream;"),
    ],
    "haproxy": [("balance leastconn", "balance leastconn\n http-response wait-for-body time 20s")],
    "caddy": [("transport http", "buffer_responses\ntransport http")],
}
# The longest silence that each would stand, cut down to a second. Caddy stands any.
SHORT: dict[str, Changes] = {
    "nginx": [("proxy_read_timeout 310s;", "proxy_read_timeout 1s;")],
    "haproxy": [("timeout server 310s", "timeout server 1s")],
}


@pytest.fixture
def behind(redis_url: str, hand: ByHand, tmp_path: Path) -> Behind:
    """A visitor of Keyturn behind a proxy, before an upstream that the test plays."""

    @asynccontextmanager
    async def open_all(
        name: str, changes: Changes = (), *, patience: Patience | None = None, **said: Any
    ) -> AsyncIterator[Visitor]:
        settings = settings_with(
            redis_url=redis_url,
            openai_base_url=hand.url,
            byok_base_url=hand.url,
            trusted_proxies=HOST,
            **said,
        )
        async with serving(settings, patience or Patience()) as server:
            with PROXIES[name](tmp_path / name, [server.url], changes) as proxy:
                async with visiting_ready(proxy) as visitor:
                    yield visitor

    return open_all


@asynccontextmanager
async def visiting_ready(proxy: Proxy) -> AsyncIterator[Visitor]:
    """A visitor of a proxy that has found its Keyturn."""
    async with proxy.visiting() as visitor:
        async with visitor.session.get(proxy.url + "/healthz") as answer:
            assert answer.status == 200
        yield visitor


@each
@pytest.mark.parametrize("said", [BY_CHAT, BY_RESPONSES], ids=["chat", "responses"])
async def test_each_word_arrives_before_the_next_is_said(
    behind: Behind, hand: ByHand, name: str, said: Spoken
) -> None:
    """Upstream says a word only when the visitor has read the one before; so it goes to the end."""
    async with behind(name) as visitor:
        visitor.path = said.path
        async with streaming(visitor, hand) as (answer, call):
            for word in ("one", "two", "three"):
                await call.say(said.word(word))
                async with asyncio.timeout(5):
                    assert await answer.content.readexactly(len(said.word(word))) == said.word(word)
            await call.end(said.end)
            assert await answer.read() == said.end


@each
async def test_a_proxy_that_buffers_shows_nothing(behind: Behind, hand: ByHand, name: str) -> None:
    """The control: told to buffer, each of them keeps the first word until the last is said."""
    async with behind(name, BUFFERING[name]) as visitor:
        sending = asyncio.create_task(_first_word(visitor))
        call = await hand.call()
        await call.begin()
        await call.say(event("one"))
        await asyncio.wait({sending}, timeout=1)
        assert not sending.done()
        await call.end(event("two"))
        assert await asyncio.wait_for(sending, 10) == event("one")


async def _first_word(visitor: Visitor) -> bytes:
    url = visitor.url + visitor.path
    async with visitor.session.post(url, data=visitor.body(), headers=visitor.headers()) as answer:
        return await answer.content.readuntil(b"\n\n")


@each
async def test_plain_text_streams_too(behind: Behind, hand: ByHand, name: str) -> None:
    """/api/chat answers in a type that no proxy takes for a stream."""
    body = {"user_message": "hello", "api_key": "sk-of-a-visitor"}
    async with behind(name) as visitor:
        posting = visitor.session.post(visitor.url + "/api/chat", json=body)
        asked = asyncio.create_task(_opened(posting))
        call = await hand.call()
        await call.begin()
        await call.say(event("one"))
        answer = await asyncio.wait_for(asked, 5)
        async with asyncio.timeout(5):
            assert await answer.content.readexactly(3) == b"one"
        answer.close()


async def _opened(posting: Any) -> aiohttp.ClientResponse:
    answer: aiohttp.ClientResponse = await posting
    return answer


@each
@pytest.mark.parametrize("spoken_before", [True, False], ids=["in a stream", "before it"])
async def test_a_hang_up_reaches_upstream(
    behind: Behind, hand: ByHand, name: str, spoken_before: bool
) -> None:
    """Upstream is silent, so nothing but the hang-up itself can tell; it is closed in a second."""
    async with behind(name) as visitor:
        turn = asyncio.create_task(_first_word(visitor))
        call = await hand.call()
        if spoken_before:
            await call.begin()
            await call.say(event("one"))
            assert await turn == event("one")  # and left, in the middle of the stream
        else:
            turn.cancel()
        left_at = time.monotonic()
        assert await call.closed(HUNG_UP)
        assert time.monotonic() - left_at < HUNG_UP


@needs("caddy")
async def test_caddy_told_to_flush_lets_upstream_go_on(behind: Behind, hand: ByHand) -> None:
    """The control of what the Caddyfile leaves out: by flush_interval -1 a hang-up is lost."""
    flush = ("transport http", "flush_interval -1\ntransport http")
    async with behind("caddy", [flush]) as visitor:
        turn = asyncio.create_task(_first_word(visitor))
        call = await hand.call()
        turn.cancel()
        assert not await call.closed(2 * HUNG_UP)


@each
async def test_a_long_silence_is_survived(behind: Behind, hand: ByHand, name: str) -> None:
    """Twice as long as the proxy would wait: comments keep the stream open, and it ends well."""
    chatty = Patience(keep_alive=0.3)
    async with (
        behind(name, SHORT.get(name, ()), patience=chatty) as visitor,
        streaming(visitor, hand) as (answer, call),
    ):
        await call.say(event("one"))
        assert await answer.content.readuntil(b"\n\n") == event("one")
        await asyncio.sleep(2)  # it is the time itself that is tried here
        await call.end(BY_CHAT.end)
        told = await answer.read()
    assert told.count(b": keep-alive\n\n") > 3
    assert told.endswith(BY_CHAT.end)


@pytest.mark.parametrize("name", [pytest.param(each, marks=needs(each)) for each in SHORT])
async def test_silence_without_a_word_is_cut(behind: Behind, hand: ByHand, name: str) -> None:
    """The control: by the same short limit, without comments, the proxy ends the stream."""
    async with (
        behind(name, SHORT[name], patience=Patience(keep_alive=60)) as visitor,
        streaming(visitor, hand) as (answer, call),
    ):
        await call.say(event("one"))
        with pytest.raises(aiohttp.ClientError):
            await asyncio.wait_for(answer.read(), 10)
