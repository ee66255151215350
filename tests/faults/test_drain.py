"""Stopping a server with turns under way: they end well or with a frame, and all are settled."""

import asyncio
import contextlib
import json
import signal
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import redis

from tests.command_stage import Running, ended, server_py
from tests.faults.figures import DRAINED, Figures, as_many
from tests.faults.log import Log
from tests.faults.naive import naively
from tests.stage import (
    OPERATORS_KEY,
    SECRET,
    Upstream,
    Visitor,
    eventually,
    serving,
    settings_with,
    visiting,
)
from tests.upstream import play
from tests.wire import (
    BY_CHAT,
    BY_RESPONSES,
    DONE,
    END,
    ByHand,
    Call,
    deaf,
    event,
    port_of,
    raw_turn,
    streaming,
)

CROWD = as_many(50, 200)
FEW = 50
LAST_RESORT = 5  # seconds after DRAIN_SECONDS in which the server cuts whatever is left


def environment(redis_url: str, upstream: str, **more: str) -> dict[str, str]:
    """What an operator sets, with generous limits."""
    return {
        "REDIS_URL": redis_url,
        "OPENAI_BASE_URL": upstream,
        "OPENAI_API_KEY": OPERATORS_KEY,
        "API_SECRET_KEY": SECRET,
        "RATE_LIMIT": "100000/minute",
        "START_LIMIT": "100000/minute",
        "START_LIMIT_GLOBAL": "100000/minute",
        "MAX_STREAMS_PER_IP": "1000",
        **more,
    }


@asynccontextmanager
async def streams(
    url: str, hand: ByHand, count: int = CROWD
) -> AsyncIterator[list[tuple[Visitor, aiohttp.ClientResponse, Call]]]:
    """So many visitors, each with a stream that has begun."""
    async with AsyncExitStack() as stack:
        under_way = []
        for number in range(count):
            visitor = await stack.enter_async_context(visiting(url))
            answer, call = await stack.enter_async_context(streaming(visitor, hand))
            await call.say(event(f"one {number}"))
            assert await answer.content.readuntil(b"\n\n") == event(f"one {number}")
            under_way.append((visitor, answer, call))
        yield under_way


async def exit_code(running: Running, within: float) -> int:
    """How the process ended, which it must have in time."""
    return await asyncio.to_thread(running.process.wait, within)


def in_flight(redis_url: str) -> list[bytes]:
    """The places that Redis still holds for turns."""
    with redis.Redis.from_url(redis_url, decode_responses=False) as client:
        return list(client.scan_iter("*:inflight:*"))


async def is_closed(url: str) -> bool:
    """Whether new connections are refused, rather than left waiting."""
    timeout = aiohttp.ClientTimeout(total=1)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        try:
            async with session.get(f"{url}/healthz"):
                return False
        except aiohttp.ClientConnectorError:
            return True
        except (aiohttp.ClientError, TimeoutError):
            return False


@pytest.mark.parametrize(
    ("workers", "number"), [(1, signal.SIGTERM), (4, signal.SIGTERM), (1, signal.SIGINT)]
)
async def test_streams_under_way_end_well(
    redis_url: str, hand: ByHand, tmp_path: Path, figures: Figures, workers: int, number: int
) -> None:
    """All of them complete after the signal; nobody else gets in; the tokens go on after it."""
    said = environment(redis_url, hand.url, WORKERS=str(workers))
    with server_py(tmp_path / "first", **said) as running:
        async with streams(running.url, hand) as under_way:
            running.process.send_signal(number)
            await eventually(lambda: is_closed(running.url))
            assert not ended(running)
            bodies = []
            for _, answer, call in under_way:
                await call.end(event("two") + END)
                bodies.append(await answer.read())
        assert await exit_code(running, 5) == 0
    figures.note(DRAINED, bodies.count(event("two") + END), of=CROWD)
    assert bodies == [event("two") + END] * CROWD
    assert hand.posts == CROWD
    assert in_flight(redis_url) == []
    assert noise(running) == []
    tokens = [visitor.token for visitor, _, _ in under_way]
    assert len({*tokens, None}) == CROWD + 1
    said["WORKERS"] = "1"
    with server_py(tmp_path / "second", **said) as running:
        async with (
            visiting(running.url, token=tokens[7]) as visitor,
            streaming(visitor, hand) as (
                answer,
                call,
            ),
        ):
            await call.end(END)
            assert await answer.read() == END


def noise(running: Running) -> list[str]:
    """What a server has said on stderr that is neither a turn nor a plain line of its own."""
    lines = [each for each in running.err.read_text().splitlines() if each[:1] != "{"]
    return [line for line in lines if " keyturn " not in line or "Traceback" in line]


def frame_of(body: bytes) -> Any:
    """The error in the last frame of a stream."""
    return json.loads(body.rsplit(b"data: ", 1)[1])["error"]


@pytest.mark.parametrize("workers", [1, 2])
async def test_streams_that_last_too_long_end_with_a_frame(
    redis_url: str, hand: ByHand, tmp_path: Path, workers: int
) -> None:
    """Past DRAIN_SECONDS each is told, upstream closed, all settled, and the exit clean."""
    said = environment(redis_url, hand.url, DRAIN_SECONDS="1", WORKERS=str(workers))
    with server_py(tmp_path / "kt", **said) as running:
        async with streams(running.url, hand) as under_way:
            stopped_at = time.monotonic()
            running.process.send_signal(signal.SIGTERM)
            bodies = [await answer.read() for _, answer, _ in under_way]
            assert 1 <= time.monotonic() - stopped_at < 4
            assert all([await call.closed(0.5) for _, _, call in under_way])
        assert await exit_code(running, 4) == 0
    assert {frame_of(body)["code"] for body in bodies} == {"overloaded"}
    assert not any(DONE in body for body in bodies)
    assert in_flight(redis_url) == []
    assert noise(running) == []


async def test_the_last_event_is_of_the_streams_own_grammar(
    redis_url: str, hand: ByHand, tmp_path: Path
) -> None:
    """A response and a chat under way at SIGTERM: each is told in the words of its API."""
    said = environment(redis_url, hand.url, DRAIN_SECONDS="1")
    spoken = (BY_RESPONSES, BY_CHAT)
    with server_py(tmp_path / "kt", **said) as running:
        async with AsyncExitStack() as stack:
            under_way = []
            for each in spoken:
                visitor = await stack.enter_async_context(visiting(running.url, path=each.path))
                answer, call = await stack.enter_async_context(streaming(visitor, hand))
                await call.say(each.word("one"))
                under_way.append(answer)
            running.process.send_signal(signal.SIGTERM)
            bodies = [await answer.read() for answer in under_way]
        assert await exit_code(running, 4) == 0
    for each, body in zip(spoken, bodies, strict=True):
        assert body.startswith(each.word("one"))
        assert frame_of(body)["code"] == "overloaded"
    response = json.loads(bodies[0].rsplit(b"event: error\ndata: ", 1)[1])
    assert (response["type"], response["sequence_number"]) == ("error", 1)
    assert response["code"] == "overloaded"
    assert b"event:" not in bodies[1]
    assert in_flight(redis_url) == []
    assert noise(running) == []


async def test_a_turn_that_upstream_has_not_answered_is_told_too(
    redis_url: str, hand: ByHand, tmp_path: Path
) -> None:
    """Before the first byte it is a 503 with the token that goes on, not a broken connection."""
    said = environment(redis_url, hand.url, DRAIN_SECONDS="1")
    with server_py(tmp_path / "kt", **said) as running:
        async with visiting(running.url) as visitor:
            asked = asyncio.create_task(visitor.say())
            call = await hand.call()
            running.process.send_signal(signal.SIGTERM)
            answer = await asked
            assert await call.closed(0.5)
        assert (answer.status, answer.code) == (503, "overloaded")
        assert answer.json["chain"] == "advanced"
        assert answer.token
        assert await exit_code(running, 4) == 0
    assert in_flight(redis_url) == []


async def test_a_deaf_client_does_not_hold_up_the_end(
    redis_url: str, upstream: Upstream, tmp_path: Path
) -> None:
    """One that reads nothing, not even its error frame, is cut; the exit is clean all the same."""
    said = environment(redis_url, upstream.url, DRAIN_SECONDS="1")
    endless = play(words=1_000_000, text="x" * 1000)
    with server_py(tmp_path / "kt", **said) as running:
        async with visiting(running.url) as visitor:
            request = raw_turn(visitor, visitor.body(endless))
            with deaf(port_of(running.url), request):
                await eventually(lambda: any_place(redis_url))
                running.process.send_signal(signal.SIGTERM)
                assert await exit_code(running, 1 + LAST_RESORT + 2) == 0
    assert in_flight(redis_url) == []
    assert noise(running) == []


async def any_place(redis_url: str) -> bool:
    """Whether a turn is under way."""
    return bool(in_flight(redis_url))


async def test_a_server_in_a_hurry_settles_all(redis_url: str, hand: ByHand, log: Log) -> None:
    """Where the server cancels its requests, as uvicorn does by itself, every turn is settled."""
    patient = {"redis_timeout_ms": 5000, "redis_deadline_ms": 10_000}  # the machine may be busy
    settings = settings_with(redis_url=redis_url, openai_base_url=hand.url, **patient)
    async with AsyncExitStack() as stack, serving(settings) as server:
        server.uvicorn.config.timeout_graceful_shutdown = 1
        await stack.enter_async_context(streams(server.url, hand))
        assert len(in_flight(redis_url)) > CROWD
    assert in_flight(redis_url) == []
    assert [line for line in log.lines() if "Exception" in line] == []


async def test_a_naive_server_completes_none(hand: ByHand, figures: Figures) -> None:
    """The control: a graceful timeout of one second over streams that need longer."""
    async with naively(hand.url, graceful=1) as naive, streams(naive.url, hand, FEW) as under_way:
        assert naive.server
        naive.server.should_exit = True
        await eventually(lambda: is_closed(naive.url))
        await asyncio.sleep(1.5)
        completed = 0
        for _, answer, call in under_way:
            await call.end(event("two") + END)
            with contextlib.suppress(aiohttp.ClientError):
                completed += (await answer.read()).endswith(DONE)
    figures.note(DRAINED, completed, of=FEW, control=True)
    assert completed == 0
