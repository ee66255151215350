"""Clients that take or send too slowly: cut in time, settled, and never hoarded for."""

import asyncio
import contextlib
import functools
import json
import socket
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from starlette.types import Receive, Scope, Send

from house import Keyturn, open_house
from patience import Patience
from protocol import KeyturnProtocol
from server import create_app
from tests.faults.log import Log
from tests.faults.naive import plain_uvicorn, url_of
from tests.protocol_stage import connect
from tests.stage import (
    Server,
    Upstream,
    at_rest,
    eventually,
    serving,
    settings_with,
    visiting,
)
from tests.upstream import play
from tests.wire import CLOSED_WITHIN, ByHand, Call, deaf, port_of, raw_turn

WRITE = 0.5
ENDLESS = play(words=1_000_000, text="x" * 9000, ignore_limit=True)
KERNEL = 16 << 20  # bytes that the buffers of four sockets on loopback may hold
FLOOD = 64 << 20
PIECE = b"data: " + json.dumps({"choices": [{"delta": {"content": "x" * 60_000}}]}).encode()
PIECE += b"\n\n"


@pytest.fixture
async def strict(redis_url: str, upstream: Upstream) -> AsyncIterator[Server]:
    """Keyturn that waits for a client's reading as long as `WRITE`."""
    settings = settings_with(redis_url=redis_url, openai_base_url=upstream.url)
    async with serving(settings, Patience(write=WRITE, body=WRITE)) as server:
        yield server


@pytest.fixture
async def strict_by_hand(redis_url: str, hand: ByHand) -> AsyncIterator[Server]:
    """The same before an upstream by hand."""
    settings = settings_with(redis_url=redis_url, openai_base_url=hand.url)
    async with serving(settings, Patience(write=WRITE)) as server:
        yield server


async def test_a_client_that_never_reads_is_cut(
    strict: Server, upstream: Upstream, log: Log
) -> None:
    """Within the write deadline it is cut, upstream closed and the turn settled, in one line."""
    async with visiting(strict) as visitor:
        with deaf(port_of(strict.url), raw_turn(visitor, visitor.body(ENDLESS))) as client:
            await eventually(lambda: begun(upstream, 1))
            started = time.monotonic()
            await eventually(lambda: at_rest(strict), 10)
            assert time.monotonic() - started < WRITE * 10
            with contextlib.suppress(ConnectionError):
                while piece := await asyncio.to_thread(client.recv, 65536):
                    assert not piece.endswith(b"0\r\n\r\n")
        [entry] = await closed(upstream, 1)
    assert entry["chunks"] * 1000 < KERNEL
    assert log.amiss() == ["slow_reader"]


async def begun(upstream: Upstream, count: int) -> bool:
    """Whether so many POSTs have come in."""
    return len(await upstream.books()) == count


async def closed(upstream: Upstream, count: int) -> list[dict[str, Any]]:
    """The books, once every POST was closed by us."""
    books: list[dict[str, Any]] = []

    async def all_closed() -> bool:
        books[:] = await upstream.books()
        return [entry["ended"] for entry in books] == ["closed"] * count

    await eventually(all_closed, 5)
    return books


async def test_deaf_clients_do_not_hold_up_the_others(strict: Server, upstream: Upstream) -> None:
    """Fifty of them are cut and settled, and a good visitor is answered meanwhile."""
    crowd = 50
    async with visiting(strict) as visitor:
        with contextlib.ExitStack() as stack:
            for number in range(crowd):
                request = raw_turn(visitor, visitor.body(ENDLESS))
                stack.enter_context(deaf(port_of(strict.url), request))
                await eventually(functools.partial(begun, upstream, number + 1))
            assert (await visitor.say()).status == 200
            await eventually(lambda: at_rest(strict), 10)
    books = await upstream.books()
    assert [entry["ended"] for entry in books].count("closed") == crowd


async def test_a_client_that_keeps_reading_is_not_cut(redis_url: str, upstream: Upstream) -> None:
    """Slowly is well: a reader that takes something within each deadline gets all of it."""
    settings = settings_with(
        redis_url=redis_url, openai_base_url=upstream.url, max_output_tokens=4000
    )
    patience = Patience(write=1.5)
    async with serving(settings, patience) as server, visiting(server) as visitor:
        words = play(words=4000, text="x" * 1000)
        async with connect(port_of(server.url), receive_buffer=65536) as client:
            await client.send(raw_turn(visitor, visitor.body(words)))
            started, got = time.monotonic(), b""
            while not got.endswith(b"0\r\n\r\n"):
                got = got[-32:] + await client.reader.read(65536)
                await asyncio.sleep(0.05)
            assert time.monotonic() - started > patience.write * 2
            assert b"[DONE]" in got
        await eventually(lambda: at_rest(server))


async def accepted(call: Call) -> int:
    """How many bytes upstream gets rid of until it is held back, at most `FLOOD`."""
    sent = 0
    with contextlib.suppress(TimeoutError):
        while sent < FLOOD:
            await asyncio.wait_for(call.say(PIECE), WRITE / 2)
            sent += len(PIECE)
    return sent


async def test_what_a_client_does_not_take_is_not_taken_from_upstream(
    strict_by_hand: Server, hand: ByHand
) -> None:
    """Upstream is held back while a client reads nothing: no memory of ours fills up."""
    async with visiting(strict_by_hand) as visitor:
        with deaf(port_of(strict_by_hand.url), raw_turn(visitor)):
            call = await hand.call()
            await call.begin()
            sending = asyncio.create_task(accepted(call))
            most = 0
            while not sending.done():
                buffered = [buffer_of(c) for c in strict_by_hand.uvicorn.server_state.connections]
                most = max([most, *buffered])
                await asyncio.sleep(0.01)
            assert await sending < KERNEL
            assert most < 4 * len(PIECE)
            await eventually(lambda: at_rest(strict_by_hand), 5)
        assert await call.closed(CLOSED_WITHIN)


def buffer_of(connection: object) -> int:
    """How many bytes wait in the server for this connection's client."""
    assert isinstance(connection, KeyturnProtocol)
    sock = connection.transport.get_extra_info("socket")
    in_kernel = sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
    assert in_kernel <= 2 * KeyturnProtocol.SEND_BUFFER  # Linux doubles it, for its own books
    return connection.transport.get_write_buffer_size()


async def test_a_relay_without_back_pressure_takes_everything(hand: ByHand) -> None:
    """The control: a reader task with a queue takes in all that upstream has, for a deaf client."""
    queue: asyncio.Queue[bytes] = asyncio.Queue()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        async with aiohttp.ClientSession() as session, session.post(hand.url, data=b"-") as answer:
            reading = asyncio.create_task(read(answer))
            try:
                while True:
                    body = {"type": "http.response.body", "body": await queue.get()}
                    await send({**body, "more_body": True})
            finally:
                reading.cancel()

    async def read(answer: aiohttp.ClientResponse) -> None:
        async for piece in answer.content.iter_any():
            queue.put_nowait(piece)

    async with plain_uvicorn(app) as server:
        with deaf(port_of(url_of(server)), b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"):
            call = await hand.call()
            await call.begin()
            assert await accepted(call) >= FLOOD


async def test_without_a_way_to_cut_the_server_complains(
    redis_url: str, upstream: Upstream, log: Log
) -> None:
    """The control: under plain uvicorn a client that never reads leaves an error in the log."""
    settings = settings_with(redis_url=redis_url, openai_base_url=upstream.url)

    @contextlib.asynccontextmanager
    async def opening() -> AsyncIterator[Keyturn]:
        async with open_house(settings, patience=Patience(write=WRITE)) as keyturn:
            yield keyturn

    async with plain_uvicorn(create_app(opening)) as server, visiting(url_of(server)) as visitor:
        with deaf(port_of(url_of(server)), raw_turn(visitor, visitor.body(ENDLESS))):
            await closed(upstream, 1)
    assert "ASGI callable returned without completing response." in log.lines()


@pytest.mark.parametrize("drip", [False, True])
async def test_a_client_that_does_not_finish_its_body_is_refused(
    strict: Server, upstream: Upstream, drip: bool
) -> None:
    """Silent or dripping, it is told so once, and nothing was spent."""
    async with visiting(strict) as visitor, connect(port_of(strict.url)) as client:
        turn = raw_turn(visitor, visitor.body("x" * 5000))
        begun_at = time.monotonic()
        await client.send(turn[:-4000])
        for at in range(len(turn) - 4000, len(turn) - 3000) if drip else ():
            if client.reader.at_eof() or time.monotonic() - begun_at > WRITE * 2:
                break
            await client.send(turn[at : at + 1])
            await asyncio.sleep(WRITE / 20)
        assert await client.closed(WRITE * 6)
    assert client.got.startswith(b"HTTP/1.1 408 ")
    assert client.problem()["code"] == "request_timeout"
    assert await at_rest(strict)
    assert await upstream.books() == []
    assert await strict.keyturn.store.dbsize() == 0
