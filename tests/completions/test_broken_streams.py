"""Streams that fail after their first byte: one frame in our words, and never a good end."""

import json
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from tests.completions.responses_stream import event as event_of
from tests.completions.rows import read
from tests.stage import (
    RESPONSES,
    Server,
    Visitor,
    at_rest,
    eventually,
    serving,
    settings_with,
    visiting,
)
from tests.wire import BY_CHAT, BY_RESPONSES, ByHand, Call, Spoken, asking, streaming

Fail = Callable[[Call, Spoken], Awaitable[None]]

SECRET = "a text of upstream's that is nobody's business"


def frame_of(body: bytes) -> Any:
    """The error in the last frame of a broken stream."""
    last = body.rsplit(b"data: ", 1)[1]
    assert last.endswith(b"\n\n")
    return json.loads(last)["error"]


async def next_turn_works(visitor: Visitor, hand: ByHand, spoken: Spoken) -> bool:
    """Whether the token that came with a broken stream admits the next turn."""
    stream = spoken.word("two") + spoken.end
    async with streaming(visitor, hand) as (answer, call):
        await call.end(stream)
        return await answer.read() == stream


ERROR_FRAMES = {
    "plain": b'data: {"error":{"message":"%s","code":"boom"}}\n\n' % SECRET.encode(),
    "beside choices": b'data: {"choices":[],"error":{"message":"%s"}}\n\n' % SECRET.encode(),
    "a string": b'data: {"error":"%s"}\n\n' % SECRET.encode(),
    "named": b'event: error\ndata: {"message":"%s"}\n\n' % SECRET.encode(),
    "named, no JSON": b"event: error\r\ndata: %s\r\n\r\n" % SECRET.encode(),
}
OF_RESPONSES = {
    "flat": event_of("error", code="boom", message=SECRET, param=None),
    "nested": event_of("error", error={"type": "server_error", "code": "boom", "message": SECRET}),
    "failed": event_of("response.failed", response={"error": {"code": "boom", "message": SECRET}}),
}


@pytest.mark.parametrize(
    ("spoken", "frame"),
    [
        *((BY_CHAT, frame) for frame in ERROR_FRAMES.values()),
        *((BY_RESPONSES, frame) for frame in {**ERROR_FRAMES, **OF_RESPONSES}.values()),
    ],
    ids=[*ERROR_FRAMES, *(f"responses, {name}" for name in {**ERROR_FRAMES, **OF_RESPONSES})],
)
async def test_upstreams_error_is_said_in_our_words(
    impatient: Server, hand: ByHand, spoken: Spoken, frame: bytes
) -> None:
    """An error is replaced by ours; neither its text nor a good end behind it comes through."""
    async with (
        visiting(impatient, path=spoken.path) as visitor,
        streaming(visitor, hand) as (answer, call),
    ):
        await call.say(spoken.word("one"))
        await call.end(frame + spoken.word("late") + spoken.end)
        body = await answer.read()
    assert body.startswith(spoken.word("one"))
    assert frame_of(body)["code"] == "upstream_unavailable"
    assert body.count(b'"error"') <= 2
    for unwanted in (SECRET.encode(), spoken.last, b"late", b"boom"):
        assert unwanted not in body


FAULTS = {
    "context_length_exceeded": "upstream_rejected",
    "invalid_prompt": "upstream_rejected",
    "bio_policy": "upstream_rejected",
    "rate_limit_exceeded": "upstream_rate_limited",
    "insufficient_quota": "upstream_rate_limited",
    "server_error": "upstream_unavailable",
}


@pytest.mark.parametrize("code", FAULTS)
async def test_whose_fault_it_was_is_told_behind_a_200_too(
    impatient: Server, hand: ByHand, spoken: Spoken, code: str
) -> None:
    """OpenAI refuses a stream of Responses after its head: it is told as if its status had been."""
    error = {"code": code, "message": SECRET, "type": "invalid_request_error"}
    async with visiting(impatient, path=spoken.path) as visitor:
        async with streaming(visitor, hand) as (answer, call):
            await call.end(
                b"data: " + json.dumps({"type": "error", "error": error}).encode() + b"\n\n"
            )
            assert frame_of(await answer.read())["code"] == FAULTS[code]
        async with asking(visitor, stream=False) as asked:
            whole = json.dumps({"status": "failed", "error": error}).encode()
            await (await hand.call()).whole("200 OK", "application/json", whole)
            refused = await read(asked)
        assert refused.code == FAULTS[code]
        assert SECRET not in refused.body.decode()


async def test_conversations_that_are_too_long_are_no_failure_of_upstream(
    impatient: Server, hand: ByHand
) -> None:
    """However many at once are refused behind a 200, the breaker before upstream stays closed."""
    too_long = event_of("error", error={"code": "context_length_exceeded", "message": SECRET})
    async with AsyncExitStack() as stack:
        calls = []
        for _ in range(6):
            visitor = await stack.enter_async_context(visiting(impatient, path=RESPONSES))
            answer, call = await stack.enter_async_context(streaming(visitor, hand))
            calls.append((answer, call))
        for answer, call in calls:
            await call.end(too_long)
            assert frame_of(await answer.read())["code"] == "upstream_rejected"
        assert await next_turn_works(visitor, hand, BY_RESPONSES)


async def test_what_was_whole_before_a_failure_still_arrives(
    impatient: Server, hand: ByHand, spoken: Spoken
) -> None:
    """Events that came in one piece with the error leave before it."""
    async with (
        visiting(impatient, path=spoken.path) as visitor,
        streaming(visitor, hand) as (answer, call),
    ):
        words = spoken.word("one") + spoken.word("two")
        await call.end(words + ERROR_FRAMES["plain"])
        body = await answer.read()
    assert body.startswith(words)
    assert body.count(b"data: ") == 3


async def reset(call: Call, spoken: Spoken) -> None:
    """Cut the connection in the middle of an event."""
    await call.say(spoken.word("cut off")[:30])
    call.cut()


async def hang(call: Call, spoken: Spoken) -> None:
    """Say nothing more."""


async def cut_short(call: Call, spoken: Spoken) -> None:
    """End the body without a good end."""
    await call.end()


async def cut_inside(call: Call, spoken: Spoken) -> None:
    """End the body one byte before its end."""
    await call.end(spoken.last[:-1])


async def close_unended(call: Call, spoken: Spoken) -> None:
    """Close the connection where more of a chunked body is due."""
    await call.say_raw(b"ff\r\nhalf")
    call.close()


async def garbage(call: Call, spoken: Spoken) -> None:
    """Send an event that is no JSON, and then all that belongs to a good end."""
    await call.end(b"data: " + SECRET.encode() + b"\n\n" + spoken.end)


async def page(call: Call, spoken: Spoken) -> None:
    """Send what a proxy says when its own timeout strikes."""
    await call.end(b"<html>" + SECRET.encode() + b"</html>")


async def bad_chunk(call: Call, spoken: Spoken) -> None:
    """Break HTTP itself."""
    await call.say_raw(b"not a chunk size\r\n")


async def endless(call: Call, spoken: Spoken) -> None:
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
    impatient: Server, hand: ByHand, spoken: Spoken, fail: Fail, code: str
) -> None:
    """What came is kept, one frame says why, upstream is closed, and the token goes on."""
    async with visiting(impatient, path=spoken.path) as visitor:
        async with streaming(visitor, hand) as (answer, call):
            await call.say(spoken.word("one"))
            await fail(call, spoken)
            body = await answer.read()
            assert await call.closed(0.5)
        said = body.replace(b": keep-alive\n\n", b"")
        assert said.startswith(spoken.word("one"))
        assert said.count(b"data: ") == 2
        assert frame_of(said)["code"] == code
        assert SECRET.encode() not in body
        assert spoken.last not in body
        await eventually(lambda: at_rest(impatient))
        assert await next_turn_works(visitor, hand, spoken)
    assert hand.posts == 2


async def test_a_turn_has_an_end_however_busy_it_is(
    redis_url: str, hand: ByHand, spoken: Spoken
) -> None:
    """Past MAX_STREAM_SECONDS a stream that never pauses ends with the frame of a timeout."""
    settings = settings_with(
        redis_url=redis_url,
        openai_base_url=hand.url,
        max_stream_seconds=1,
        max_output_tokens=100_000,  # more than one can say in a second
    )
    async with serving(settings) as server, visiting(server, path=spoken.path) as visitor:
        async with streaming(visitor, hand) as (answer, call):
            body = b""
            while not answer.content.at_eof():
                await call.say(spoken.word("more"))
                body += await answer.content.readany()
        assert frame_of(body)["code"] == "upstream_timeout"
        assert spoken.last not in body
        await eventually(lambda: at_rest(server))
        assert await next_turn_works(visitor, hand, spoken)
