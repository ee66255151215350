"""How a request is written to upstream: whole, known to have left, and without more work."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import aiohttp
import pytest
from aiohttp.http_writer import _serialize_headers
from yarl import URL

from completions.charge import Meter
from completions.connections import Answer, Pool
from patience import Patience
from tests.stage import eventually

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


class Upstream(asyncio.Protocol):
    """Takes requests of a known length and answers each, with `{}` unless told otherwise."""

    def __init__(self, length: int) -> None:
        self.reads: list[bytes] = []
        self.answer = OK
        self.connections = 0
        self._length = length
        self._asked = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep where to answer."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.connections += 1

    def data_received(self, data: bytes) -> None:
        """Answer once the body is whole."""
        self.reads.append(data)
        self._asked += data
        _, _, body = self._asked.partition(b"\r\n\r\n")
        if len(body) == self._length:
            self._asked = b""
            self.say(self.answer)

    def say(self, data: bytes) -> None:
        """Send this too."""
        self._transport.write(data)


@asynccontextmanager
async def listening(length: int) -> AsyncIterator[tuple[Upstream, str]]:
    """An upstream of one connection, and where it is."""
    loop, upstream = asyncio.get_running_loop(), Upstream(length)
    server = await loop.create_server(lambda: upstream, "127.0.0.1", 0)
    try:
        yield upstream, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/x?y"
    finally:
        server.close()


@asynccontextmanager
async def counting_tasks() -> AsyncIterator[list[Any]]:
    """The tasks that begin meanwhile."""
    loop, begun = asyncio.get_running_loop(), []

    def begin(loop: asyncio.AbstractEventLoop, work: Any, **kwargs: Any) -> asyncio.Task[Any]:
        begun.append(task := asyncio.Task(work, loop=loop, **kwargs))
        return task

    loop.set_task_factory(begin)
    try:
        yield begun
    finally:
        loop.set_task_factory(None)


@asynccontextmanager
async def pooled(**patience: float) -> AsyncIterator[Pool]:
    """A pool with one connection."""
    pool = Pool(connections=1, patience=Patience(**patience))
    try:
        yield pool
    finally:
        await pool.close()


async def whole(answer: Answer) -> bytes:
    """All that it says."""
    return await answer.content.read()


async def heard(pool: Pool) -> bool:
    """Whether upstream spoke on the connection that is idle."""
    (idle,) = pool._connector._conns.values()
    return any(protocol.should_close for protocol, _ in idle)


@pytest.mark.parametrize("length", [600, 32 << 10, 200_000])
async def test_a_body_is_written_whole_without_a_task(length: int) -> None:
    """On the same connection time after time; that it begins to leave is known."""
    sent, body = Meter(), b"x" * length
    async with listening(length) as (upstream, url), pooled() as pool:
        assert await whole(await pool.post(url, {}, body, Meter())) == b"{}"
        upstream.reads.clear()
        async with counting_tasks() as begun:
            assert await whole(await pool.post(url, {"X-Y": "z"}, body, sent)) == b"{}"
        assert (len(begun), sent.sent) == (0, True)
        head, _, rest = b"".join(upstream.reads).partition(b"\r\n\r\n")
        assert rest == body
        assert head.startswith(b"POST /v1/x?y HTTP/1.1\r\nHost: 127.0.0.1:")
        names = [line.partition(b":")[0] for line in head.split(b"\r\n")[1:]]
        usual = [b"Accept", b"Accept-Encoding", b"Content-Length", b"Host", b"User-Agent", b"X-Y"]
        assert sorted(names) == usual
        assert f"\r\nContent-Length: {length}".encode() in head
    assert upstream.connections == 1


async def test_a_short_request_arrives_in_one_piece() -> None:
    """Its head does not leave alone."""
    async with listening(600) as (upstream, url), pooled() as pool:
        assert await whole(await pool.post(url, {}, b"x" * 600, Meter())) == b"{}"
        assert len(upstream.reads) == 1


async def test_a_body_is_not_said_to_have_left_before_there_is_a_connection() -> None:
    """Where nobody listens, nothing left, and nothing is owed."""
    sent = Meter()
    async with listening(1) as (_, url):
        pass
    async with pooled() as pool:
        with pytest.raises(OSError, match="Cannot connect"):
            await pool.post(url, {}, b"x", sent)
    assert not sent.sent


@pytest.mark.parametrize("name", ["X-Y", "X-Y\r\nX-Z"])
async def test_a_header_can_hold_no_other(name: str) -> None:
    """Nothing of such a request leaves."""
    async with listening(1) as (upstream, url), pooled() as pool:
        with pytest.raises(ValueError, match="header injection"):
            await pool.post(url, {name: "z\r\nX-Z: z" if name == "X-Y" else "z"}, b"x", Meter())
        assert await whole(await pool.post(url, {}, b"x", Meter())) == b"{}"
        assert b"X-Z" not in b"".join(upstream.reads)


async def test_what_upstream_says_unasked_is_nobodys_answer() -> None:
    """A connection on which it spoke between two requests is closed, and the next one is new."""
    async with listening(1) as (upstream, url), pooled() as pool:
        assert await whole(await pool.post(url, {}, b"x", Meter())) == b"{}"
        upstream.say(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong")
        await eventually(partial(heard, pool))
        assert await whole(await pool.post(url, {}, b"x", Meter())) == b"{}"
    assert upstream.connections == 2


async def test_a_head_says_what_is_said_by_all_its_headers_at_once() -> None:
    """What all requests to a place have in common was written before, and nothing of it is new."""
    turn = {"Authorization": "Bearer sk-x", "Content-Type": "application/json", "X-Y": "ö"}
    async with listening(3) as (upstream, url), pooled() as pool:
        for _ in range(2):
            upstream.reads.clear()
            assert await whole(await pool.post(url, turn, b"xyz", Meter())) == b"{}"
            request = aiohttp.ClientRequest(
                *("POST", URL(url)),
                headers={"Accept-Encoding": "identity", "User-Agent": "keyturn", **turn},
                loop=asyncio.get_running_loop(),
            )
            request.headers["Content-Length"] = "3"
            at_once = _serialize_headers("POST /v1/x?y HTTP/1.1", request.headers)
            head, _, body = b"".join(upstream.reads).partition(b"\r\n\r\n")
            assert sorted(head.split(b"\r\n")) == sorted(at_once.rstrip().split(b"\r\n"))
            assert (head.split(b"\r\n")[0], body) == (b"POST /v1/x?y HTTP/1.1", b"xyz")


async def test_silence_is_counted_from_the_last_piece() -> None:
    """One timer serves all pieces: an answer that goes on is not cut, one that stops is."""
    async with listening(1) as (upstream, url), pooled(silence=0.4) as pool:
        upstream.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"
        answer = await pool.post(url, {}, b"x", Meter())
        for _ in range(4):
            await asyncio.sleep(0.2)
            upstream.say(b"x")
            assert await answer.content.readany() == b"x"
        began = asyncio.get_running_loop().time()
        with pytest.raises(TimeoutError):
            await answer.content.readany()
        assert 0.3 < asyncio.get_running_loop().time() - began < 3
        answer.leave()


async def test_whoever_reads_is_told_of_broken_http_at_once() -> None:
    """And not when nothing came for long: that clock stands still by then."""
    async with listening(1) as (upstream, url), pooled(silence=60) as pool:
        answer = await begun(pool, url, upstream, b"3\r\nabc\r\n")
        assert await answer.content.readany() == b"abc"
        reading = asyncio.create_task(answer.content.readany())
        await asyncio.sleep(0)
        upstream.say(b"no size\r\n")
        with pytest.raises(aiohttp.ClientPayloadError, match="no HTTP"):
            await asyncio.wait_for(reading, 5)
        answer.leave()
        upstream.answer = OK
        assert await whole(await pool.post(url, {}, b"x", Meter())) == b"{}"
    assert upstream.connections == 2


async def test_who_leaves_early_closes_the_connection() -> None:
    """What would still come is nobody's answer; the next one is asked on a new connection."""
    async with listening(1) as (upstream, url), pooled() as pool:
        upstream.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx"
        (await pool.post(url, {}, b"x", Meter())).leave()
        upstream.reads.clear()
        upstream.answer = OK
        assert await whole(await pool.post(url, {}, b"x", Meter())) == b"{}"
    assert upstream.connections == 2


async def paused(answer: Answer) -> bool:
    """Whether nothing more of it is received."""
    return answer.content._protocol._reading_paused


async def begun(pool: Pool, url: str, upstream: Upstream, chunks: bytes) -> Answer:
    """An answer whose head came, and then these chunks."""
    upstream.answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = await pool.post(url, {}, b"x", Meter())
    upstream.say(chunks)
    return answer


async def test_all_that_waits_is_taken_at_once() -> None:
    """Whatever HTTP's chunks are, nothing is lost, changed or out of order, also behind a part that
    was taken by itself; and then it ends."""
    said = [b"%d," % number * (number % 700 + 1) for number in range(900)]
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in said)
    async with listening(1) as (upstream, url), pooled() as pool:
        answer = await begun(pool, url, upstream, chunks + b"0\r\n\r\n")
        reads = [await answer.content.read(1)]
        while data := await answer.content.readany():
            reads.append(data)
        assert b"".join(reads) == b"".join(said)
        assert len(reads) < len(said) / 2
        upstream.answer = OK
        assert await whole(await pool.post(url, {}, b"x", Meter())) == b"{}"
    assert upstream.connections == 1


@pytest.mark.parametrize("size", [1, 1000])
async def test_what_nobody_takes_is_not_received(size: int) -> None:
    """By its bytes and by its pieces; whoever takes it gets all."""
    chunks = b"%x\r\n%b\r\n" % (size, b"y" * size) * 20_000
    async with listening(1) as (upstream, url), pooled() as pool:
        answer = await begun(pool, url, upstream, chunks + b"0\r\n\r\n")
        await eventually(partial(paused, answer))
        most = {1: 520, 1000: 20}[size]
        assert len(answer.content._buffer) < most
        assert len(await whole(answer)) == 20_000 * size


async def test_reading_the_end_of_one_answer_does_not_receive_more_of_the_next() -> None:
    """Their connection is the same, and who reads the first late does not answer for the second."""
    async with listening(1) as (upstream, url), pooled() as pool:
        first = await pool.post(url, {}, b"x", Meter())
        second = await begun(pool, url, upstream, b"3e8\r\n%b\r\n" % (b"y" * 1000) * 2000)
        await eventually(partial(paused, second))
        received = len(second.content._buffer)
        assert await whole(first) == b"{}"
        assert (len(second.content._buffer), upstream.connections) == (received, 1)
        second.leave()
