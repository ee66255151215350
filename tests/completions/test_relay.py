"""The relay: upstream's bytes as they came, as soon as they are whole, and failures said once."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from completions.grammars import ChatScanner
from completions.relay import relay_stream
from tests.completions.responses_stream import STREAMS
from tests.stage import CHAT, RESPONSES, Server, Visitor, visiting
from tests.wire import (
    CLOSED_WITHIN,
    DONE,
    END,
    ByHand,
    Spoken,
    event,
    streaming,
)

COMMENT = b": keep-alive\n\n"
HELD_BACK = 0.3  # seconds in which an event that is not held back would have come
USAGE = b'data: {"id":"c1","choices":[],"usage":{"prompt_tokens":7,"completion_tokens":1}}\n\n'

ODD = (
    b": a comment of upstream's\n\n"
    + b'data:{"choices":[{"index":0,"delta":{"content":"no space"}}]}\n\n'
    + b'data:   {  "choices" : [ { "delta" : { "content" : "wide" } } ] }  \n\n'
    + b'event: message\r\nid: 7\r\nretry: 10\r\ndata: {"choices":[{"delta":{}}]}\r\n\r\n'
    + b'data: {"choices":\ndata: [{"delta":{"content":"two lines"}}]}\n\n'
    + b'data: {"choices":[{"delta":{"content":"\\u00e4\xc3\xa4\xf0\x9f\x98\x80"}}]}\r\r'
    + b'unheard-of: field\ndata: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n\n\n'
    + DONE
)
USUAL = event("one") + event("two") + event("three") + END

Relay = Callable[[Any, Any, ChatScanner, float], Awaitable[None]]


class Sink:
    """An answer that remembers."""

    def __init__(self) -> None:
        self.got = b""
        self.came = asyncio.Event()

    async def write(self, data: bytes) -> None:
        """Take it."""
        self.got += data
        self.came.set()


class Pieces:
    """A source that gives these pieces one by one; None stands for a silence."""

    def __init__(self, pieces: Sequence[bytes | None]) -> None:
        self._pieces = list(pieces)

    async def readany(self) -> bytes:
        """The next piece, b"" after the last."""
        await asyncio.sleep(0)
        piece = self._pieces.pop(0) if self._pieces else b""
        if piece is None:
            await asyncio.sleep(3600)
        assert piece is not None
        return piece


async def relay_in_pairs(source: Any, answer: Any, scanner: ChatScanner, keep_alive: float) -> None:
    """A relay that waits for two reads before it sends, as a compressor or a batcher does."""
    while data := await source.readany():
        data += await source.readany()
        await answer.write(data)


async def relay_blindly(source: Any, answer: Any, scanner: ChatScanner, keep_alive: float) -> None:
    """A relay that passes every read on, and comments where it is silent."""
    while True:
        try:
            async with asyncio.timeout(keep_alive):
                data = await source.readany()
        except TimeoutError:
            data = COMMENT
        if not data:
            return
        await answer.write(data)


def by(spoken: Spoken, server: Server) -> AbstractAsyncContextManager[Visitor]:
    """A visitor who chats by this API."""
    return visiting(server, path=spoken.path)


@asynccontextmanager
async def relaying(relay: Relay, hand: ByHand) -> AsyncIterator[tuple[Any, Sink]]:
    """A relay between a real connection to upstream, whose pen is given, and a sink."""
    sink = Sink()

    async def run() -> None:
        async with aiohttp.ClientSession() as session, session.post(hand.url, data=b"-") as answer:
            await relay(answer.content, sink, ChatScanner(keep_usage=True), 60)

    task = asyncio.create_task(run())
    call = await hand.call()
    await call.begin()
    yield call, sink
    await call.end(END)
    await asyncio.wait_for(task, 5)


async def relayed(relay: Relay, pieces: Sequence[bytes | None], keep_alive: float = 60) -> bytes:
    """What a relay makes of pieces."""
    sink = Sink()
    await relay(Pieces(pieces), sink, ChatScanner(keep_usage=True), keep_alive)
    return sink.got


@pytest.mark.parametrize(("relay", "prompt"), [(relay_stream, True), (relay_in_pairs, False)])
async def test_an_event_leaves_before_the_next_is_sent(
    hand: ByHand, relay: Relay, prompt: bool
) -> None:
    """The first event comes through while upstream still holds the second (control: does not)."""
    async with relaying(relay, hand) as (call, sink):
        await call.say(event("one"))
        came = await _soon(sink.came)
        assert (came, sink.got) == (prompt, event("one") if prompt else b"")


async def _soon(came: asyncio.Event) -> bool:
    try:
        await asyncio.wait_for(came.wait(), HELD_BACK)
    except TimeoutError:
        return False
    return True


async def test_the_visitor_reads_each_event_before_upstream_sends_the_next(
    impatient: Server, hand: ByHand, spoken: Spoken
) -> None:
    """Over real sockets, headers and token come before the first event, and events one by one."""
    async with by(spoken, impatient) as visitor, streaming(visitor, hand) as (answer, call):
        assert answer.headers["Keyturn-Token"]
        for word in map(spoken.word, ("one", "two", "three")):
            await call.say(word)
            assert await answer.content.readany() == word
        await call.end(spoken.end)
        assert await answer.content.read() == spoken.end


RESPONSE = b": a comment of upstream's\n\n" + b"".join(STREAMS["function call"][0])


@pytest.mark.parametrize(
    ("path", "stream"),
    [
        *((CHAT, ODD), (CHAT, USUAL), (RESPONSES, RESPONSE)),
        *((CHAT, USUAL.replace(b"\n", end)) for end in (b"\r\n", b"\r")),
        *((RESPONSES, RESPONSE.replace(b"\n", end)) for end in (b"\r\n", b"\r")),
    ],
    ids=["odd", "usual", "a response", "CRLF", "CR", "a response, CRLF", "a response, CR"],
)
async def test_bytes_reach_the_visitor_unchanged(
    impatient: Server, hand: ByHand, path: str, stream: bytes
) -> None:
    """Odd spacing, comments, unknown fields and line ends come out as upstream wrote them."""
    async with (
        visiting(impatient, path=path) as visitor,
        streaming(visitor, hand) as (answer, call),
    ):
        for at in range(0, len(stream), 7):
            await call.say(stream[at : at + 7])
        await call.end()
        assert await answer.read() == stream


@given(st.sampled_from([ODD, USUAL]), st.lists(st.integers(1, len(ODD) - 1), max_size=40))
def test_how_upstream_splits_its_bytes_makes_no_difference(stream: bytes, cuts: list[int]) -> None:
    """Cut anywhere, inside a line end or a character too, the same bytes arrive."""
    assert asyncio.run(relayed(relay_stream, split(stream, cuts))) == stream


def split(stream: bytes, cuts: list[int]) -> list[bytes]:
    """The stream cut at these places."""
    places = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    return [stream[a:b] for a, b in itertools.pairwise(places)]


def events_of(stream: bytes) -> list[bytes]:
    """The data of each event, as a browser's EventSource reads it."""
    lines = stream.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    found, data = [], b""
    for line in lines:
        if line.startswith(b"data:"):
            data += line[5:].removeprefix(b" ") + b"\n"
        elif not line and data:
            found.append(data)
            data = b""
    return found


@pytest.mark.parametrize("stream", [ODD, USUAL])
@pytest.mark.parametrize(("relay", "whole"), [(relay_stream, True), (relay_blindly, False)])
def test_a_keep_alive_never_lands_inside_an_event(stream: bytes, relay: Relay, whole: bool) -> None:
    """Silence after any byte adds comments and nothing else (control: breaks events)."""

    async def everywhere() -> list[bytes]:
        pauses = [[stream[:at], None, stream[at:]] for at in range(1, len(stream))]
        return list(await asyncio.gather(*(relayed(relay, said, 0.05) for said in pauses)))

    intact = [
        (got.count(COMMENT), got.replace(COMMENT, b""), events_of(got))
        == (1, stream, events_of(stream))
        for got in asyncio.run(everywhere())
    ]
    assert all(intact) is whole


async def test_silence_is_filled_with_comments(
    impatient: Server, hand: ByHand, spoken: Spoken
) -> None:
    """A visitor's connection is kept alive before, between and not inside events."""
    one = spoken.word("one")
    async with by(spoken, impatient) as visitor, streaming(visitor, hand) as (answer, call):
        assert await answer.content.readany() == COMMENT
        await call.say(one[:20])
        assert await answer.content.readany() == COMMENT
        await call.say(one[20:])
        assert await answer.content.readany() == one
        assert await answer.content.readany() == COMMENT
        await call.end(spoken.end)
        assert (await answer.content.read()).replace(COMMENT, b"") == spoken.end


@pytest.mark.parametrize(
    ("options", "shown"),
    [({}, b""), ({"include_usage": False}, b""), ({"include_usage": True}, USAGE)],
)
async def test_the_usage_chunk_is_for_those_who_asked(
    impatient: Server, hand: ByHand, options: dict[str, Any], shown: bytes
) -> None:
    """Upstream is always asked for usage; only a visitor who asked too gets to see it."""
    async with (
        visiting(impatient) as visitor,
        streaming(visitor, hand, stream_options=options) as (answer, call),
    ):
        assert json.loads(call.body)["stream_options"] == {"include_usage": True}
        await call.end(event("one") + event("", finish="stop") + USAGE + DONE)
        finish = event("", finish="stop")
        assert await answer.read() == event("one") + finish + shown + DONE


@pytest.mark.parametrize("cut", [False, True])
async def test_nothing_can_fail_after_done(
    server_by_hand: Server, hand: ByHand, spoken: Spoken, cut: bool
) -> None:
    """An upstream that hangs or breaks once all was said is closed, and the stream ends well."""
    said = spoken.word("one") + spoken.end
    async with by(spoken, server_by_hand) as visitor, streaming(visitor, hand) as (answer, call):
        await call.say(said)
        assert await answer.content.readany() == said
        if cut:
            call.cut()
        assert await asyncio.wait_for(answer.read(), 3) == b""
        assert await call.closed(CLOSED_WITHIN)


async def test_what_follows_done_still_leaves(
    impatient: Server, hand: ByHand, spoken: Spoken
) -> None:
    """Bytes are upstream's to the last, where it ends in good time."""
    async with by(spoken, impatient) as visitor, streaming(visitor, hand) as (answer, call):
        await call.say(spoken.end)
        assert await answer.content.readany() == spoken.end
        await call.end(b": bye\n\n")
        assert await answer.read() == b": bye\n\n"
