"""How a request is written to upstream: whole, known to have left, and without more work."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from completions.charge import Meter
from completions.connections import Metered, new_session, post
from patience import Patience


class Upstream(asyncio.Protocol):
    """Takes requests of a known length and answers each with `{}`."""

    def __init__(self, length: int) -> None:
        self.reads: list[bytes] = []
        self._length = length

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep where to answer."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer once the body is whole."""
        self.reads.append(data)
        _, _, body = b"".join(self.reads).partition(b"\r\n\r\n")
        if len(body) == self._length:
            self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")


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


@pytest.mark.parametrize(("length", "tasks"), [(600, 0), (32 << 10, 0), (200_000, 1)])
async def test_only_a_long_body_is_written_by_a_task(length: int, tasks: int) -> None:
    """Whole bodies arrive either way, on the same connection, and are known to have left; the
    control is a body that may have to wait for the connection."""
    sent, body = Meter(), b"x" * length
    async with (
        listening(length) as (upstream, url),
        new_session(connections=1, patience=Patience()) as session,
    ):
        async with await post(session, url, {}, Metered(body, Meter())) as answer:
            assert await answer.read() == b"{}"
        upstream.reads.clear()
        async with (
            counting_tasks() as begun,
            await post(session, url, {}, Metered(body, sent)) as answer,
        ):
            assert await answer.read() == b"{}"
        assert (len(begun), sent.sent) == (tasks, True)
        head, _, rest = b"".join(upstream.reads).partition(b"\r\n\r\n")
        assert rest == body
        assert head.startswith(b"POST /v1/x?y HTTP/1.1\r\nHost: 127.0.0.1:")
        assert f"\r\nContent-Length: {length}".encode() in head


async def test_a_short_request_arrives_in_one_piece() -> None:
    """Its head does not leave alone."""
    async with (
        listening(600) as (upstream, url),
        new_session(connections=1, patience=Patience()) as session,
        await post(session, url, {}, Metered(b"x" * 600, Meter())) as answer,
    ):
        assert await answer.read() == b"{}"
        assert len(upstream.reads) == 1


async def test_a_body_is_not_said_to_have_left_before_there_is_a_connection() -> None:
    """Where nobody listens, nothing left, and nothing is owed."""
    sent = Meter()
    async with listening(1) as (_, url):
        pass
    async with new_session(connections=1, patience=Patience()) as session:
        with pytest.raises(OSError, match="Cannot connect"):
            await post(session, url, {}, Metered(b"x", sent))
    assert not sent.sent
