"""Streams that fail after their first byte: one frame in our words, and never a [DONE]."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from completions.grammars import ChatScanner
from completions.relay import relay_stream
from security.errors import UpstreamFailure
from tests.stage import Server, Visitor, at_rest, eventually, serving, settings_with, visiting
from tests.wire import DONE, END, ByHand, Call, event, streaming

SECRET = "a text of upstream's that is nobody's business"


def frame_of(body: bytes) -> Any:
    """The error in the last frame of a broken stream."""
    last = body.rsplit(b"data: ", 1)[1]
    assert last.endswith(b"\n\n")
    return json.loads(last)["error"]


async def next_turn_works(visitor: Visitor, hand: ByHand) -> bool:
    """Whether the token that came with a broken stream admits the next turn."""
    async with streaming(visitor, hand) as (answer, call):
        await call.end(event("two") + END)
        return await answer.read() == event("two") + END


ERROR_FRAMES = {
    "plain": b'data: {"error":{"message":"%s","code":"boom"}}\n\n' % SECRET.encode(),
    "beside choices": b'data: {"choices":[],"error":{"message":"%s"}}\n\n' % SECRET.encode(),
    "a string": b'data: {"error":"%s"}\n\n' % SECRET.encode(),
    "named": b'event: error\ndata: {"message":"%s"}\n\n' % SECRET.encode(),
    "named, no JSON": b"event: error\r\ndata: %s\r\n\r\n" % SECRET.encode(),
}


@pytest.mark.parametrize("frame", ERROR_FRAMES.values(), ids=ERROR_FRAMES)
async def test_upstreams_error_is_said_in_our_words(
    impatient: Server, hand: ByHand, frame: bytes
) -> None:
    """An error frame is replaced by ours; neither its text nor a [DONE] behind it comes through."""
    async with visiting(impatient) as visitor, streaming(visitor, hand) as (answer, call):
        await call.say(event("one"))
        await call.end(frame + event("late") + DONE)
        body = await answer.read()
    assert body.startswith(event("one"))
    assert frame_of(body)["code"] == "upstream_unavailable"
    assert body.count(b'"error"') == 1
    for unwanted in (SECRET.encode(), b"[DONE]", b"late"):
        assert unwanted not in body


async def test_what_was_whole_before_a_failure_still_arrives(
    impatient: Server, hand: ByHand
) -> None:
    """Events that came in one piece with the error leave before it."""
    async with visiting(impatient) as visitor, streaming(visitor, hand) as (answer, call):
        await call.end(event("one") + event("two") + ERROR_FRAMES["plain"])
        body = await answer.read()
    assert body.startswith(event("one") + event("two") + b'data: {"error"')


async def reset(call: Call) -> None:
    """Cut the connection in the middle of an event."""
    await call.say(event("cut off")[:30])
    call.cut()


async def hang(call: Call) -> None:
    """Say nothing more."""


async def cut_short(call: Call) -> None:
    """End the body without a finish_reason or a [DONE]."""
    await call.end()


async def cut_inside(call: Call) -> None:
    """End the body one byte before the end of [DONE]."""
    await call.end(DONE[:-1])


async def close_unended(call: Call) -> None:
    """Close the connection where more of a chunked body is due."""
    await call.say_raw(b"ff\r\nhalf")
    call.close()


async def garbage(call: Call) -> None:
    """Send an event that is no JSON, and then all that belongs to a good end."""
    await call.end(b"data: " + SECRET.encode() + b"\n\n" + END)


async def page(call: Call) -> None:
    """Send what a proxy says when its own timeout strikes."""
    await call.end(b"<html>" + SECRET.encode() + b"</html>")


async def bad_chunk(call: Call) -> None:
    """Break HTTP itself."""
    await call.say_raw(b"not a chunk size\r\n")


async def endless(call: Call) -> None:
    """Send an event of more than 1 MiB."""
    await call.say(b"data: ")
    for _ in range(17):
        await call.say(b"x" * (1 << 16))


@pytest.mark.parametrize(
    ("fail", "code"),
    [
        (reset, "upstream_unavailable"),
        (hang, "upstream_timeout"),
        (cut_short, "upstream_unavailable"),
        (cut_inside, "upstream_unavailable"),
        (close_unended, "upstream_unavailable"),
        (garbage, "upstream_unavailable"),
        (page, "upstream_unavailable"),
        (bad_chunk, "upstream_unavailable"),
        (endless, "upstream_unavailable"),
    ],
)
async def test_a_stream_that_breaks_ends_with_a_frame(
    impatient: Server, hand: ByHand, fail: Callable[[Call], Awaitable[None]], code: str
) -> None:
    """What came is kept, one frame says why, upstream is closed, and the token goes on."""
    async with visiting(impatient) as visitor:
        async with streaming(visitor, hand) as (answer, call):
            await call.say(event("one"))
            await fail(call)
            body = await answer.read()
            assert await call.closed(0.5)
        said = body.replace(b": keep-alive\n\n", b"")
        assert said.startswith(event("one"))
        assert said.count(b"data: ") == 2
        assert frame_of(said)["code"] == code
        assert SECRET.encode() not in body
        assert b"[DONE]" not in body
        await eventually(lambda: at_rest(impatient))
        assert await next_turn_works(visitor, hand)
    assert hand.posts == 2


@pytest.mark.parametrize(
    "pieces",
    [[event("one")], [event("one") + DONE[:-1]], [], [b"data: no json\n\n", END]],
    ids=["no end", "cut before the last byte", "nothing", "no JSON"],
)
async def test_a_relay_returns_only_from_a_stream_that_ended_well(pieces: list[bytes]) -> None:
    """Upstream has to say that it was done; a connection that merely ends is a failure."""

    class Source:
        async def readany(self) -> bytes:
            return pieces.pop(0) if pieces else b""

    class Sink:
        async def write(self, data: bytes) -> None:
            """Take it."""

    with pytest.raises(UpstreamFailure, match="upstream_unavailable"):
        await relay_stream(Source(), Sink(), ChatScanner(keep_usage=True), 60)  # type: ignore[arg-type]


async def test_a_finished_stream_may_lack_its_done(impatient: Server, hand: ByHand) -> None:
    """Servers that end with a finish_reason and no [DONE] are passed on as they are."""
    stream = event("one") + event("", finish="stop")
    async with visiting(impatient) as visitor, streaming(visitor, hand) as (answer, call):
        await call.end(stream)
        assert await answer.read() == stream


async def test_a_turn_has_an_end_however_busy_it_is(redis_url: str, hand: ByHand) -> None:
    """Past MAX_STREAM_SECONDS a stream that never pauses ends with the frame of a timeout."""
    settings = settings_with(
        redis_url=redis_url,
        openai_base_url=hand.url,
        max_stream_seconds=1,
        max_output_tokens=100_000,  # more than one can say in a second
    )
    async with serving(settings) as server, visiting(server) as visitor:
        async with streaming(visitor, hand) as (answer, call):
            body = b""
            while not answer.content.at_eof():
                await call.say(event("more"))
                body += await answer.content.readany()
        assert frame_of(body)["code"] == "upstream_timeout"
        assert b"[DONE]" not in body
        await eventually(lambda: at_rest(server))
        assert await next_turn_works(visitor, hand)
