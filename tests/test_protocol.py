"""The limits of KeyturnProtocol, each beside uvicorn's own protocol, which does not keep it.

Real uvicorn servers, on asyncio and on uvloop, and raw sockets.
"""

import asyncio
import contextlib
import gc
import http.client
import logging
import pickle
import select
import socket
import struct
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from protocol import KeyturnProtocol
from tests.protocol_stage import SOON, Stage, connect, fate, running

STOCK = HttpToolsProtocol
HALF = b"GET /echo HTTP/1.1\r\nHost: x\r\n"  # all but the empty line
GET = HALF + b"\r\n"
HOLD = b"GET /hold HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /%s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
CHUNKED = b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n"

Serve = Callable[..., int]
Fate = tuple[bool, bytes]

each_loop = pytest.mark.parametrize("serve", ["asyncio", "uvloop"], indirect=True)


class Hasty(KeyturnProtocol):
    """Short times."""

    HEAD_SECONDS = 0.3
    LINGER_SECONDS = 0.3
    DEAF_SECONDS = 0.5


class Narrow(KeyturnProtocol):
    """Small sizes."""

    HEAD_LIMIT = 2048
    PIPELINE_LIMIT = 4
    LINGER_SECONDS = 30.0  # so that a test sees whether anything waits for it


@pytest.fixture
def stage() -> Stage:
    """The app of every server in a test."""
    return Stage()


@pytest.fixture
def serve(request: pytest.FixtureRequest, stage: Stage) -> Iterator[Serve]:
    """Starts servers with a given protocol and keep-alive time, and stops them after the test."""
    loop = getattr(request, "param", "uvloop")
    with contextlib.ExitStack() as stack:

        def start(protocol: type[HttpToolsProtocol], keep_alive: float = 30) -> int:
            sock = socket.create_server(("127.0.0.1", 0))
            stack.enter_context(running(stage, protocol, sock, loop, keep_alive))
            return int(sock.getsockname()[1])

        yield start


async def both(serve: Serve, ours: type[KeyturnProtocol], *pieces: bytes) -> tuple[Fate, Fate]:
    """The fate of the same bytes with our protocol and with uvicorn's own."""
    return await asyncio.gather(
        fate(serve(ours), *pieces), fate(serve(STOCK), *pieces, within=SOON)
    )


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged that an operator should read."""
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


# The time of a head


async def test_a_silent_connection_is_closed_without_a_word(serve: Serve) -> None:
    """Who never sends a byte is sent none; uvicorn waits for ever."""
    ours, stock = await both(serve, Hasty)
    assert ours == (True, b"")
    assert stock == (False, b"")


@each_loop
async def test_half_a_head_is_answered_408(serve: Serve) -> None:
    """A head that stays unfinished gets request_timeout and the end of the connection."""
    port, control = serve(Hasty), serve(STOCK)
    stock = asyncio.create_task(fate(control, HALF, within=SOON))
    async with connect(port) as client:
        await client.send(HALF)
        assert await client.closed()
        problem = client.problem()
    assert client.got.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert (problem["code"], problem["status"], problem["chain"]) == (
        "request_timeout",
        408,
        "kept",
    )
    assert b"x-request-id: " + problem["request_id"].encode() in client.got
    assert b"x-should-retry: false" in client.got
    assert b"\r\ndate: " in client.got
    assert await stock == (False, b"")


async def test_a_kept_connection_is_timed_from_the_first_byte_of_the_next_head(
    serve: Serve,
) -> None:
    """Idle it may stay beyond the deadline of a head; half a head then gets 408."""

    async def idle_then_half(port: int, patience: float) -> tuple[bool, bytes]:
        async with connect(port) as client:
            await client.send(GET)
            await client.until(b"host;")
            assert not await client.closed(SOON)
            await client.send(HALF)
            return await client.closed(patience), client.got

    ours, stock = await asyncio.gather(
        idle_then_half(serve(Hasty), 5), idle_then_half(serve(STOCK), SOON)
    )
    assert ours[0]
    assert b"HTTP/1.1 408" in ours[1]
    assert not stock[0]


async def test_an_idle_kept_connection_is_left_to_uvicorns_own_timer(serve: Serve) -> None:
    """The keep-alive time ends it without a word."""
    closed, got = await fate(serve(KeyturnProtocol, keep_alive=0.4), GET)
    assert closed
    assert got.count(b"HTTP/1.1") == 1


async def test_empty_lines_do_not_keep_a_connection(serve: Serve) -> None:
    """An idle client that sends one line end is closed; with uvicorn it stops the only timer."""

    async def idle_then_line_end(port: int, patience: float) -> tuple[bool, bytes]:
        async with connect(port) as client:
            await client.send(GET)
            await client.until(b"host;")
            await client.send(b"\r\n")
            return await client.closed(patience), client.got

    ours, stock = await asyncio.gather(
        idle_then_line_end(serve(Hasty, keep_alive=0.4), 5),
        idle_then_line_end(serve(STOCK, keep_alive=0.4), SOON),
    )
    assert ours[0]
    assert ours[1].count(b"HTTP/1.1") == 1
    assert not stock[0]


async def test_a_head_sent_byte_by_byte_in_time_is_served(serve: Serve) -> None:
    """Slowness alone is no fault."""
    async with connect(serve(KeyturnProtocol)) as client:
        for _ in range(2):
            await client.send(*(GET[i : i + 1] for i in range(len(GET))))
        got = await client.until(b"host;", times=2)
    assert got.count(b"HTTP/1.1 200 OK") == 2


async def test_the_deadline_of_a_head_spares_the_body_and_the_answer(
    serve: Serve, stage: Stage
) -> None:
    """A body may take longer than a head, and so may an answer with stray bytes behind it."""
    async with connect(serve(Hasty)) as client:
        await client.send(POST % (b"echo", 4), b"ab")
        assert not await client.closed(SOON)
        await client.send(b"cd")
        await client.until(b";")
        await client.send(HOLD, b"\r\n" + HALF)
        assert not await client.closed(SOON)
        await stage.release()
        got = await client.until(b"ended")
        await client.send(b"\r\n")
        assert b"4 host,content-length;" in got
        await client.until(b"0 host;")
    assert await stage.heard() == {True}


async def test_a_body_behind_an_early_answer_is_timed(serve: Serve) -> None:
    """Who was answered and drips on is closed; uvicorn lets each byte stop its timer."""

    async def drip(port: int, patience: float) -> bool:
        async with connect(port) as client:
            await client.send(POST % (b"early", 100))
            await client.until(b"0\r\n\r\n")
            await client.send(b"a")
            return bool(await client.closed(patience))

    ours, stock = serve(Hasty, keep_alive=0.4), serve(STOCK, keep_alive=0.4)
    assert list(await asyncio.gather(drip(ours, 5), drip(stock, SOON))) == [True, False]


async def test_a_body_that_comes_after_its_answer_leaves_the_connection_usable(
    serve: Serve,
) -> None:
    """It stays for the keep-alive time, longer than a head may take, and then ends."""

    async def late_body(port: int, patience: float) -> tuple[bool, bool]:
        async with connect(port) as client:
            await client.send(POST % (b"early", 2))
            await client.until(b"0\r\n\r\n")
            await client.send(b"a")
            assert not await client.closed(0.1)
            await client.send(b"b")
            return await client.closed(SOON), await client.closed(patience)

    ours, stock = serve(Hasty, keep_alive=1.5), serve(STOCK, keep_alive=1.5)
    results = await asyncio.gather(late_body(ours, 5), late_body(stock, 2 * SOON))
    assert list(results) == [(False, True), (False, False)]


async def test_a_late_body_with_the_next_request_behind_it_harms_nothing(
    serve: Serve, stage: Stage
) -> None:
    """No timer of the time between the two strikes into the second answer."""
    async with connect(serve(Hasty, keep_alive=0.4)) as client:
        await client.send(POST % (b"early", 2))
        await client.until(b"0\r\n\r\n")
        await client.send(b"ab" + HOLD)
        assert not await client.closed(SOON)
        await stage.release()
        await client.until(b"ended")


# The size of a head


def head_of(size: int) -> bytes:
    """A whole request head of so many bytes."""
    start = HALF + b"X: "
    return start + b"a" * (size - len(start) - 4) + b"\r\n\r\n"


@each_loop
async def test_a_head_beyond_the_limit_is_answered_431(serve: Serve) -> None:
    """One byte too many gets headers_too_large, however it is cut; uvicorn serves it."""
    limit = Narrow.HEAD_LIMIT
    port, control = serve(Narrow), serve(STOCK)
    for cut in (1, 100, limit - 1, limit, limit + 1):
        head = head_of(limit + 1)
        async with connect(port) as client:
            await client.send(head[:cut], head[cut:])
            assert await client.closed()
            problem = client.problem()
        assert client.got.startswith(b"HTTP/1.1 431 ")
        assert (problem["code"], problem["status"]) == ("headers_too_large", 431)
    assert b"200 OK" in (await fate(control, head_of(limit + 1), within=0.5))[1]


async def test_a_head_of_exactly_the_limit_is_served(serve: Serve) -> None:
    """Also behind other requests and their trailers: each head is counted by itself."""
    async with connect(serve(Narrow)) as client:
        await client.send(*[head_of(Narrow.HEAD_LIMIT)] * 2)
        got = await client.until(b"host,x;", times=2)
        await client.send(CHUNKED.replace(b"/echo", b"/early"))
        await client.until(b"early\r\n0\r\n\r\n")
        await client.send(b"X: " + b"a" * 1000 + b"\r\n\r\n", head_of(Narrow.HEAD_LIMIT))
        got = await client.until(b"host,x;", times=3)
    assert got.count(b"200 OK") == 4


@each_loop
async def test_a_client_that_never_stops_sending_its_head_still_reads_the_431(
    serve: Serve,
) -> None:
    """Megabytes on their way do not reset the answer away."""
    async with connect(serve(Narrow)) as client:
        sending = asyncio.create_task(client.send(HALF, *[b"X: " + b"a" * 65536] * 64))
        assert await client.closed()
        await sending
    assert client.problem()["code"] == "headers_too_large"
    assert not client.reset


async def test_body_bytes_are_not_counted(serve: Serve) -> None:
    """A body of any size and cut passes, with the next request behind it."""
    body = b"b" * 300_000
    chunk = b"%x\r\n%s\r\n" % (len(body), body)
    chunked = CHUNKED.replace(b"5\r\nhello\r\n", chunk * 3) + b"\r\n"
    async with connect(serve(Narrow)) as client:
        await client.send(POST % (b"echo", len(body)) + body + GET)
        assert b"300000 host," in await client.until(b"0 host;")
        await client.send(chunked + GET)
        assert b"900000 host," in await client.until(b"0 host;", times=2)


@pytest.mark.parametrize("endless", [b"X: " + b"a" * 3000, b"X: a\r\n" * 600])
async def test_trailers_are_counted(serve: Serve, endless: bytes) -> None:
    """Endless trailers behind an answered body get 431; uvicorn keeps all of them."""
    early = CHUNKED.replace(b"/echo", b"/early")
    async with connect(serve(Narrow)) as client:
        await client.send(early)
        await client.until(b"0\r\n\r\n")
        await client.send(endless)
        assert await client.closed()
    assert b"HTTP/1.1 431" in client.got
    assert not (await fate(serve(STOCK), early, endless, within=0.5))[0]


async def test_trailers_never_become_headers(serve: Serve) -> None:
    """A proxy that rewrites headers does not look at trailers, so the app must not see them."""
    request = CHUNKED + b"X-Forwarded-For: 192.0.2.1\r\n\r\n"
    async with connect(serve(KeyturnProtocol)) as ours, connect(serve(STOCK)) as stock:
        await ours.send(request)
        assert b"5 host,transfer-encoding;" in await ours.until(b";")
        await stock.send(request)
        assert b"5 host,transfer-encoding,x-forwarded-for;" in await stock.until(b";")


# Requests behind requests


@each_loop
async def test_pipelined_requests_are_answered_in_order_however_they_are_cut(
    serve: Serve,
) -> None:
    """Three requests in one stream of bytes, cut at every place, get their three answers."""
    requests = POST % (b"echo", 3) + b"abc" + GET + CHUNKED + b"\r\n"
    port = serve(Narrow)
    for cut in range(len(requests)):
        async with connect(port) as client:
            await client.send(requests[:cut], requests[cut:])
            got = await client.until(b";", times=3)
        sizes = [int(part.split()[-2]) for part in got.split(b";")[:3]]
        assert sizes == [3, 0, 5]


BEHIND = pytest.mark.parametrize(
    "behind", [head_of(5000)[:-2], b"\x00garbage\r\n\r\n", GET * 50_000]
)


@each_loop
@BEHIND
async def test_nothing_behind_a_request_harms_its_answer(
    serve: Serve, stage: Stage, behind: bytes
) -> None:
    """A huge head, garbage or thousands of requests: the answer arrives whole, then all is over."""
    async with connect(serve(Narrow)) as client:
        await client.send(HOLD)
        await client.until(b"begun,")
        sending = asyncio.create_task(client.send(behind))
        assert not await client.closed(0.2)
        await stage.release()
        assert await client.closed()
        await sending
    assert client.got.endswith(b"\r\nended\r\n0\r\n\r\n")
    assert client.got.count(b"HTTP/1.1") == 1


@BEHIND
async def test_nothing_behind_a_request_prevents_its_answer(
    serve: Serve, stage: Stage, behind: bytes
) -> None:
    """The same while the app still thinks about a request that it has heard to its end."""
    async with connect(serve(Narrow)) as client:
        await client.send(POST % (b"think", 2) + b"ab")
        assert await stage.heard() == "all"
        sending = asyncio.create_task(client.send(behind))
        assert not await client.closed(0.2)
        await stage.release()
        assert await client.closed()
        await sending
    assert client.got.startswith(b"HTTP/1.1 200 OK\r\n")
    assert client.got.endswith(b"\r\nended\r\n0\r\n\r\n")


@pytest.mark.parametrize(
    ("wrong", "status"), [(b"zz\r\n", b"400 Bad Request"), (b"0\r\n" + b"X: a\r\n" * 1200, b"431 ")]
)
async def test_a_request_that_goes_wrong_in_its_own_body_is_answered_so(
    serve: Serve, stage: Stage, wrong: bytes, status: bytes
) -> None:
    """Malformed chunks or endless trailers are the fault of the request that they belong to; its
    app sees a disconnect."""
    begin = CHUNKED.replace(b"/echo", b"/mourn").removesuffix(b"0\r\n")
    async with connect(serve(Narrow)) as client:
        await client.send(begin, wrong)
        assert await stage.heard() == "gone"
        assert await client.closed()
    assert client.got.startswith(b"HTTP/1.1 " + status)
    assert client.got.count(b"HTTP/1.1") == 1


async def test_uvicorn_writes_into_a_running_answer_and_queues_without_end(
    serve: Serve, stage: Stage
) -> None:
    """The control of the promise above."""
    port = serve(STOCK)
    async with connect(port) as client:
        await client.send(HOLD)
        await client.until(b"begun,")
        await client.send(b"\x00garbage\r\n\r\n")
        assert await client.closed()
    assert b"begun,\r\nHTTP/1.1 400" in client.got
    async with connect(port) as client:
        await client.send(HOLD + GET * 100)
        await stage.release()
        await stage.release()
        await client.until(b"0 host;", times=100)


async def test_as_many_requests_as_the_limit_may_wait(serve: Serve, stage: Stage) -> None:
    """A modest pipeline is served to its end."""
    async with connect(serve(Narrow)) as client:
        await client.send(HOLD + GET * Narrow.PIPELINE_LIMIT)
        await stage.release()
        await client.until(b"0 host;", times=Narrow.PIPELINE_LIMIT)


@each_loop
@pytest.mark.parametrize(("protocol", "told"), [(KeyturnProtocol, "gone"), (STOCK, "never")])
async def test_the_running_request_learns_that_its_client_has_gone(
    serve: Serve, stage: Stage, protocol: type[HttpToolsProtocol], told: str
) -> None:
    """Also with another request queued behind it: uvicorn tells only the last one."""
    async with connect(serve(protocol)) as client:
        await client.send(b"GET /tick HTTP/1.1\r\nHost: x\r\n\r\n" + GET)
        await client.until(b"tick", times=2)
        client.writer.transport.abort()
    assert await stage.heard() == told


# Clients that do not read, and the abort

FLOOD = b"GET /flood HTTP/1.1\r\nHost: x\r\n\r\n"


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
