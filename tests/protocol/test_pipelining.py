"""Requests behind requests, each beside uvicorn's own protocol.

Real uvicorn servers, on asyncio and on uvloop, and raw sockets.
"""

import asyncio

import pytest
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from protocol import KeyturnProtocol
from tests.protocol.limits import (
    CHUNKED,
    GET,
    HOLD,
    POST,
    STOCK,
    Narrow,
    Serve,
    each_loop,
    head_of,
)
from tests.protocol_stage import Stage, connect


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
