"""Hang-ups at every stage of a turn: upstream is closed at once, and the turn settled."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aiohttp
import pytest

from tests.faults.figures import CLOSED, HUNG_UP, Figures
from tests.faults.log import Log
from tests.faults.naive import naively
from tests.protocol_stage import connect
from tests.stage import RESPONSES, Server, Upstream, Visitor, at_rest, eventually, visiting
from tests.upstream import play
from tests.wire import (
    BY_RESPONSES,
    CLOSED_WITHIN,
    DONE,
    ByHand,
    Call,
    asking,
    event,
    port_of,
    raw_turn,
    streaming,
    upstream_by_hand,
)

CROWD = 100
LONG = play(words=1000, gap_ms=50)


async def holds_its_headers(call: Call) -> None:
    """Upstream has the request and says nothing."""


async def holds_half_a_head(call: Call) -> None:
    """Upstream has begun to answer."""
    await call.say_raw(b"HTTP/1.1 200 OK\r\nContent-Type: ")


async def sent_its_headers(call: Call) -> None:
    """The visitor has a 200, and nothing else yet."""
    await call.begin()


async def holds_half_an_event(call: Call) -> None:
    """Upstream stops inside an event."""
    await call.begin()
    await call.say(event("one") + event("two")[:9])


async def said_done(call: Call) -> None:
    """All that matters was said, but the connection goes on: where SDKs hang up."""
    await call.begin()
    await call.say(event("one") + event("", finish="stop") + DONE)


async def refuses_slowly(call: Call) -> None:
    """Upstream is in the middle of an error."""
    await call.begin("500 Internal Server Error", "application/json")
    await call.say(b'{"error":')


async def answers_whole_slowly(call: Call) -> None:
    """Upstream is in the middle of a JSON answer."""
    await call.begin(kind="application/json")
    await call.say(b'{"id":')


Stage = Callable[[Call], Awaitable[None]]
STAGES: list[tuple[Stage, bool]] = [
    (holds_its_headers, True),
    (holds_half_a_head, True),
    (sent_its_headers, True),
    (holds_half_an_event, True),
    (said_done, True),
    (refuses_slowly, True),
    (holds_its_headers, False),
    (answers_whole_slowly, False),
]
IDS = [f"{stage.__name__}-{'stream' if stream else 'whole'}" for stage, stream in STAGES]


def tasks() -> "set[asyncio.Task[Any]]":
    """Every task of this loop."""
    return asyncio.all_tasks()


@pytest.mark.parametrize("half_close", [False, True])
@pytest.mark.parametrize(("stage", "stream"), STAGES, ids=IDS)
async def test_a_hang_up_closes_upstream_and_settles(
    server_by_hand: Server,
    hand: ByHand,
    log: Log,
    stage: Stage,
    stream: bool,
    half_close: bool,
) -> None:
    """At whatever stage: closed within half a second, settled, no task left, one plain line."""
    async with visiting(server_by_hand) as visitor:
        before = tasks()
        async with connect(port_of(server_by_hand.url)) as client:
            await client.send(raw_turn(visitor, visitor.body(stream=stream)))
            call = await hand.call()
            await stage(call)
            if stream and stage not in (holds_its_headers, holds_half_a_head, refuses_slowly):
                await client.until(b"data: " if stage is not sent_its_headers else b"\r\n\r\n")
            assert not await at_rest(server_by_hand)
            if half_close:
                client.writer.write_eof()
                assert await call.closed(CLOSED_WITHIN)
        assert await call.closed(CLOSED_WITHIN)
        await eventually(lambda: at_rest(server_by_hand), 2)
        await eventually(lambda: no_more_than(before), 2)
    assert log.amiss() == ([] if stage is said_done else ["gone"])


async def response_begun(call: Call) -> None:
    """The visitor reads the first word of a response."""
    await call.begin()
    await call.say(BY_RESPONSES.word("one") + BY_RESPONSES.word("two")[:9])


async def response_ended(call: Call) -> None:
    """All that matters was said: SDKs hang up here, though the connection goes on."""
    await call.begin()
    await call.say(BY_RESPONSES.word("one") + BY_RESPONSES.end)


@pytest.mark.parametrize(
    ("stage", "stream", "until"),
    [
        (holds_its_headers, True, None),
        (sent_its_headers, True, b"\r\n\r\n"),
        (response_begun, True, b"data: "),
        (response_ended, True, b"response.completed"),
        (answers_whole_slowly, False, None),
    ],
)
async def test_who_leaves_a_response_closes_upstream_and_settles(
    server_by_hand: Server, hand: ByHand, log: Log, stage: Stage, stream: bool, until: bytes | None
) -> None:
    """At whatever stage: closed within half a second, settled, no task left, one plain line."""
    async with visiting(server_by_hand, path=RESPONSES) as visitor:
        before = tasks()
        async with connect(port_of(server_by_hand.url)) as client:
            await client.send(raw_turn(visitor, visitor.body(stream=stream)))
            call = await hand.call()
            await stage(call)
            if until:
                await client.until(until)
            assert not await at_rest(server_by_hand)
        assert await call.closed(CLOSED_WITHIN)
        await eventually(lambda: at_rest(server_by_hand), 2)
        await eventually(lambda: no_more_than(before), 2)
    assert log.amiss() == ([] if stage is response_ended else ["gone"])


async def no_more_than(before: "set[asyncio.Task[Any]]") -> bool:
    """Whether every task that began since is over."""
    return not tasks() - before


async def test_a_hang_up_inside_the_body_asks_nobody(
    server_by_hand: Server, hand: ByHand, log: Log
) -> None:
    """A client that leaves while it sends has spent nothing: no upstream, no Redis, no chain."""
    async with visiting(server_by_hand) as visitor:
        turn = raw_turn(visitor)
        for length in (len(turn) - 1, len(turn) - 20, turn.index(b"\r\n\r\n") + 4):
            async with connect(port_of(server_by_hand.url)) as client:
                await client.send(turn[:length])
                await eventually(lambda: read_by(server_by_hand))
        await eventually(lambda: idle(server_by_hand))
        assert await at_rest(server_by_hand)
    assert hand.posts == 0
    assert await server_by_hand.keyturn.store.dbsize() == 0
    assert log.amiss() == ["gone"] * 3


async def read_by(server: Server) -> bool:
    """Whether the server is at work on a request."""
    return len(server.uvicorn.server_state.tasks) > 0


async def idle(server: Server) -> bool:
    """Whether the server has no request and no connection."""
    return not (server.uvicorn.server_state.tasks or server.uvicorn.server_state.connections)


async def test_the_next_turn_works_after_a_hang_up(server_by_hand: Server, hand: ByHand) -> None:
    """The token that came with the first byte goes on, although the answer was not read."""
    async with visiting(server_by_hand) as visitor:
        for _ in range(3):
            async with streaming(visitor, hand) as (answer, call):
                await call.say(event("one"))
                await answer.content.readany()
            assert await call.closed(CLOSED_WITHIN)
    assert hand.posts == 3


async def test_a_hang_up_is_no_failure_of_upstream(server_by_hand: Server, hand: ByHand) -> None:
    """However many visitors lose patience, the breaker before upstream stays closed."""
    async with visiting(server_by_hand) as visitor:
        for _ in range(8):
            async with asking(visitor):
                call = await hand.call()
            assert await call.closed(CLOSED_WITHIN)
            async with streaming(visitor, hand):
                visitor.token = None  # the first of the two took its successor along


@asynccontextmanager
async def crowd(visitor: Visitor, path: str = "/v1/chat/completions") -> AsyncIterator[list[Any]]:
    """Many streams under way at once, each past its first byte."""
    async with AsyncExitStack() as stack:
        answers: list[aiohttp.ClientResponse] = []
        while len(answers) < CROWD:
            asked = visitor.session.post(
                visitor.url + path, data=visitor.body(LONG), headers=visitor.headers()
            )
            answer = await stack.enter_async_context(asked)
            if answer.status == 200:
                assert await answer.content.readany()
                answers.append(answer)
        yield answers


async def test_a_hundred_hang_ups_at_once_are_all_settled(
    server: Server, visitor: Visitor, upstream: Upstream, log: Log, figures: Figures
) -> None:
    """Every stream of a crowd is closed upstream within half a second, and settled."""
    async with crowd(visitor) as answers:
        books = await upstream.books()
        assert [entry["ended"] for entry in books] == ["open"] * CROWD
        left_at = time.time()
        for answer in answers:
            answer.close()
        await eventually(lambda: at_rest(server), 2)
    books = await closed_books(upstream)
    slowest = max(entry["ended_at"] for entry in books) - left_at
    figures.note(CLOSED, slowest)
    figures.note(HUNG_UP, log.amiss().count("gone"), of=CROWD)
    assert slowest < CLOSED_WITHIN
    assert log.amiss() == ["gone"] * CROWD


async def closed_books(upstream: Upstream) -> list[dict[str, Any]]:
    """The books of upstream, once nobody is connected."""
    books: list[dict[str, Any]] = []

    async def closed() -> bool:
        books[:] = await upstream.books()
        return all(entry["ended"] == "closed" for entry in books)

    await eventually(closed, 5)
    return books


@pytest.mark.parametrize("middleware", [False, True])
async def test_a_plain_finally_settles_fewer(
    upstream: Upstream, figures: Figures, middleware: bool
) -> None:
    """The control: a StreamingResponse that settles in its `finally` does so for some at most."""
    async with (
        naively(upstream.url, middleware=middleware) as naive,
        visiting(naive.url) as visitor,
        crowd(visitor) as answers,
    ):
        for answer in answers:
            answer.close()
        await asyncio.sleep(1)
        figures.note(HUNG_UP, naive.settled, of=CROWD, control=True)
        assert naive.begun == CROWD
        assert naive.settled < CROWD


async def test_a_bare_break_keeps_upstream_going() -> None:
    """The control: an upstream answer left by `break` goes on as long as anything holds it."""
    async with upstream_by_hand() as hand, naively(hand.url, bare_break=True) as naive:
        async with connect(port_of(naive.url)) as client:
            async with visiting(naive.url) as visitor:
                await client.send(raw_turn(visitor))
            call = await hand.call()
            await call.begin()
            await call.say(event("one"))
            await client.until(b"data: ")
        await call.say(event("two"))
        assert not await call.closed(CLOSED_WITHIN * 2)
