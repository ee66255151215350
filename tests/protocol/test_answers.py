"""Clients that do not read, the abort, and the protocol as it is run, beside uvicorn's own.

Real uvicorn servers, on asyncio and on uvloop, and raw sockets.
"""

import asyncio
import contextlib
import gc
import http.client
import pickle
import select
import socket
import struct
import weakref
from pathlib import Path

import pytest
from uvicorn import Config

from protocol import KeyturnProtocol
from tests.protocol.limits import (
    CHUNKED,
    GET,
    HALF,
    HOLD,
    POST,
    STOCK,
    Hasty,
    Roomy,
    Serve,
    both,
    each_loop,
    warnings,
)
from tests.protocol_stage import Stage, connect, running

# Clients that do not read, and the abort

FLOOD = b"GET /flood HTTP/1.1\r\nHost: x\r\n\r\n"


@each_loop
async def test_little_of_an_answer_waits_here_for_its_client(serve: Serve, stage: Stage) -> None:
    """Beside what the kernel holds; where a megabyte may lie here, it does."""
    stalled = []
    for protocol in (KeyturnProtocol, Roomy):
        async with connect(serve(protocol), receive_buffer=4096) as client:
            await client.send(FLOOD)
            stalled.append(int(await stage.heard()))
            assert await stage.heard() == "released"
    ours, roomy = stalled
    assert ours + 500_000 < roomy


@each_loop
async def test_a_client_that_never_reads_stalls_early_and_its_writer_is_released(
    serve: Serve, stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    """A stall shows before half a megabyte (megabytes with uvicorn); the abort frees the pending
    send, receive tells of the disconnect, and nothing is logged."""
    async with connect(serve(KeyturnProtocol), receive_buffer=4096) as client:
        await client.send(FLOOD)
        assert await stage.heard() < 500_000
        assert await stage.heard() == "released"
        assert await client.closed()
        assert client.reset
    assert not client.got.endswith(b"0\r\n\r\n")
    assert not warnings(caplog)
    async with connect(serve(STOCK), receive_buffer=4096) as client:
        await client.send(FLOOD)
        assert await stage.heard() > 1_000_000


@each_loop
async def test_an_aborted_answer_is_not_taken_for_a_whole_one(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """A stock client raises, and for the app that returns at once it is no error."""

    def read(port: int) -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        with contextlib.closing(connection):
            connection.request("GET", "/cut")
            return connection.getresponse().read()

    with pytest.raises((http.client.HTTPException, ConnectionError)):
        await asyncio.to_thread(read, serve(KeyturnProtocol))
    assert not warnings(caplog)


async def test_an_abort_that_comes_too_late_does_nothing(serve: Serve, stage: Stage) -> None:
    """Kept beyond its answer, it harms neither the idle connection nor the next request."""
    async with connect(serve(KeyturnProtocol)) as client:
        await client.send(b"GET /late HTTP/1.1\r\nHost: x\r\n\r\n")
        await client.until(b"late")
        abort = await stage.heard()
        abort()
        await client.send(HOLD)
        await client.until(b"begun,")
        abort()
        await stage.release()
        await client.until(b"ended")


def dropped(port: int, seconds: float) -> bool:
    """Whether the server gives up a client that asks, reads nothing and goes on sending."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", port))
        sock.sendall(b"GET /fill HTTP/1.1\r\nHost: x\r\n\r\n")
        errors = select.poll()
        errors.register(sock, 0)
        for _ in range(int(seconds * 10)):
            if errors.poll(100):
                return True
            sock.send(b"\r\n")
        return False


@each_loop
@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="Linux keeps this limit")
async def test_the_rest_of_an_answer_does_not_wait_for_ever(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """Who reads nothing of an answer already sent is dropped; uvicorn's close waits for them."""
    ours, stock = serve(Hasty, keep_alive=0.4), serve(STOCK, keep_alive=0.4)
    fates = await asyncio.gather(
        asyncio.to_thread(dropped, ours, 8), asyncio.to_thread(dropped, stock, 2)
    )
    assert list(fates) == [True, False]
    assert not warnings(caplog)


# As it is run


async def test_an_upgrade_is_ignored_in_silence(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """The request is answered as if it asked for none, and the connection goes on."""
    upgrade = HALF + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    async with connect(serve(KeyturnProtocol)) as client:
        await client.send(upgrade)
        await client.until(b"0 host,connection;")
        await client.send(GET)
        await client.until(b"0 host;")
    assert not warnings(caplog)


UPGRADE = b"Connection: Upgrade\r\nUpgrade: h2c\r\n"
WITH_LENGTH = POST.replace(b"\r\n\r\n", b"\r\n" + UPGRADE + b"\r\n") % (b"echo", len(GET)) + GET
IN_CHUNKS = CHUNKED.replace(b"\r\n\r\n5\r\nhello", b"\r\n%s\r\n%x\r\n%s" % (UPGRADE, len(GET), GET))


@each_loop
@pytest.mark.parametrize("sent", [WITH_LENGTH, IN_CHUNKS + b"\r\n"], ids=["length", "chunks"])
async def test_what_follows_an_upgrade_is_the_body_that_it_is_said_to_be(
    serve: Serve, sent: bytes
) -> None:
    """However it is cut; uvicorn loses the body, or answers what stands in it as a request."""
    ours, stock = serve(KeyturnProtocol), serve(STOCK)
    border = sent.index(b"\r\n\r\n") + 4
    for pieces in (
        [sent],
        [sent[:border], sent[border:]],
        [sent[i : i + 1] for i in range(len(sent))],
    ):
        async with connect(ours) as client:
            for piece in pieces:
                await client.send(piece)
            await client.until(b"%d host," % len(GET))
            await client.send(GET)
            got = await client.until(b"0 host;")
        assert got.count(b"HTTP/1.1 200 OK") == 2
    async with connect(stock) as client:
        await client.send(sent[:border])
        await client.until(b";")
        await client.send(sent[border:])
        got = await client.until(b"HTTP/1.1", times=2)
    assert b"0 host,content-length,connection,upgrade;" in got or b"0 host,transfer" in got


@pytest.mark.parametrize("line", [b"GET /echo", b"CONNECT x:443 HTTP/1.1"])
async def test_what_is_no_http_1_is_refused(serve: Serve, line: bytes) -> None:
    """HTTP/0.9, which has no answer of ours, and tunnels; uvicorn answers the first."""
    ours, stock = await both(serve, KeyturnProtocol, line + b"\r\n\r\n")
    assert ours[0]
    assert ours[1].startswith(b"HTTP/1.1 400 ")
    assert (b"200 OK" in stock[1]) == line.startswith(b"GET")


@pytest.mark.parametrize("linger", [struct.pack("ii", 0, 0), struct.pack("ii", 1, 0)])
async def test_a_lost_connection_is_forgotten_without_the_collector(
    serve: Serve, linger: bytes
) -> None:
    """Neither scope, abort nor timer keeps it, whether the client has closed or reset it."""
    alive: weakref.WeakSet[KeyturnProtocol] = weakref.WeakSet()

    class Watched(KeyturnProtocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            alive.add(self)

    port = serve(Watched)
    gc.disable()
    try:
        async with connect(port) as client:
            await client.send(GET + GET)
            await client.until(b"0 host;", times=2)
            assert alive
            sock = client.writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        async with asyncio.timeout(5):
            while alive:  # noqa: ASYNC110 - nothing tells when memory is freed
                await asyncio.sleep(0.01)
    finally:
        gc.enable()


async def test_a_unix_socket_is_served(stage: Stage, tmp_path: Path) -> None:
    """Options that such a socket does not know are no obstacle."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "s"))
        sock.listen()
        with running(stage, KeyturnProtocol, sock, "uvloop", 30):
            reader, writer = await asyncio.open_unix_connection(tmp_path / "s")
            writer.write(GET)
            async with asyncio.timeout(10):
                assert await reader.readuntil(b"host;")
            writer.close()
            await writer.wait_closed()


def test_workers_can_be_given_the_protocol() -> None:
    """A configuration that names it survives the way into a worker process."""
    sent = pickle.dumps(Config("server:app", http=KeyturnProtocol, workers=2))
    assert pickle.loads(sent).http is KeyturnProtocol  # noqa: S301 - our own bytes
