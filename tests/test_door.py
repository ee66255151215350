"""A server that ends answers whoever came before it closed its door."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from door import Server
from protocol import KeyturnProtocol
from tests.command_stage import ended, server_py
from tests.faults.test_drain import environment, is_closed
from tests.protocol_stage import Stage
from tests.stage import Upstream, eventually, visiting
from tests.wire import raw_turn

WAITING = 20
ASK = b"POST /echo HTTP/1.1\r\nHost: k\r\nContent-Length: 2\r\n\r\nhi"


@asynccontextmanager
async def open_door(
    kind: type[uvicorn.Server], http: type[HttpToolsProtocol] = KeyturnProtocol
) -> AsyncIterator[tuple[Any, socket.socket]]:
    """A server in this loop that serves, and the socket it listens on."""
    config = uvicorn.Config(
        Stage(), http=http, lifespan="off", log_config=None, timeout_graceful_shutdown=5
    )
    config.load()
    server = kind(config)
    server.lifespan = config.lifespan_class(config)
    with socket.create_server(("127.0.0.1", 0), backlog=WAITING) as door:
        await server.startup([door])
        yield server, door


async def read(sock: socket.socket) -> bytes:
    """All that comes until the end; a reset is the end too."""
    sock.setblocking(False)
    loop, got = asyncio.get_running_loop(), b""
    try:
        async with asyncio.timeout(10):
            while piece := await loop.sock_recv(sock, 65536):
                got += piece
    except ConnectionError:
        pass
    return got


@pytest.mark.parametrize(("kind", "answered"), [(Server, WAITING), (uvicorn.Server, 0)])
async def test_whoever_waits_at_the_door_is_answered(
    kind: type[uvicorn.Server], answered: int
) -> None:
    """Twenty have connected and asked, unseen as yet, when the server ends; plain uvicorn, the
    control, resets them all."""
    with ExitStack() as stack:
        async with open_door(kind) as (server, door):
            waiting = []
            for _ in range(WAITING):  # without a pause in which the loop could look
                sock = socket.create_connection(door.getsockname())
                waiting.append(stack.enter_context(sock))
                sock.sendall(ASK)
            await server.shutdown([door])
        told = [await read(sock) for sock in waiting]
    assert sum(each.startswith(b"HTTP/1.1 200 ") for each in told) == answered
    assert sum(b"connection: close" in each for each in told) == answered


@pytest.mark.parametrize("spoken", [0, 1], ids=["new", "kept"])
@pytest.mark.parametrize(("http", "answered"), [(KeyturnProtocol, 1), (HttpToolsProtocol, 0)])
async def test_a_connection_may_speak_once_more(
    http: type[HttpToolsProtocol], answered: int, spoken: int
) -> None:
    """One that is new or idle when the server ends still asks, and is then let go; the control
    is closed before it can."""
    async with open_door(Server, http) as (server, door):
        reader, writer = await asyncio.open_connection(*door.getsockname())
        for _ in range(spoken):
            writer.write(ASK)
            assert (await reader.readuntil(b";")).startswith(b"HTTP/1.1 200 ")
            assert (await reader.readuntil(b"0\r\n\r\n")).endswith(b"\r\n")
        await eventually(lambda: has_connected(server))
        ending = asyncio.create_task(server.shutdown([door]))
        await asyncio.sleep(0.2)  # a moment in which it could close what is idle
        writer.write(ASK)
        told = b""
        with contextlib.suppress(ConnectionError):
            told = await asyncio.wait_for(reader.read(), 5)
        writer.close()
        await ending
    assert told.startswith(b"HTTP/1.1 200 ") == bool(answered)
    assert (b"connection: close" in told) == bool(answered)


async def test_a_connection_that_says_nothing_more_is_closed() -> None:
    """A second after the door: it holds up nobody's end."""
    async with open_door(Server) as (server, door):
        reader, writer = await asyncio.open_connection(*door.getsockname())
        await eventually(lambda: has_connected(server))
        began = time.monotonic()
        await server.shutdown([door])
        assert time.monotonic() - began < KeyturnProtocol.LAST_CALL_SECONDS + 1
        assert await asyncio.wait_for(reader.read(), 1) == b""
        writer.close()


async def has_connected(server: Any) -> bool:
    """Whether a server knows of a connection."""
    return bool(server.server_state.connections)


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_turn_on_its_way_at_the_signal_is_admitted(
    redis_url: str, upstream: Upstream, tmp_path: Path, workers: str
) -> None:
    """A proxy has connected and says its chat just after SIGTERM: the answer is whole."""
    said = environment(redis_url, upstream.url, WORKERS=workers)
    with server_py(tmp_path / "kt", **said) as running:
        async with visiting(running.url) as visitor:
            request, port = raw_turn(visitor), int(running.url.rpartition(":")[2])
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            running.process.terminate()
            await eventually(lambda: is_closed(running.url))
            writer.write(request)
            answer = await asyncio.wait_for(reader.read(), 10)
            writer.close()
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"connection: close" in answer.lower()
        assert b"data: [DONE]" in answer
        await eventually(lambda: has_ended(running))
        assert running.process.returncode == 0


async def has_ended(running: Any) -> bool:
    """Whether the process is gone."""
    return ended(running)
