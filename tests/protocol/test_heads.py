"""The time and the size of a head, each beside uvicorn's own protocol, which limits neither.

Real uvicorn servers, on asyncio and on uvloop, and raw sockets.
"""

import asyncio

import pytest

from protocol import KeyturnProtocol
from tests.protocol.limits import (
    CHUNKED,
    GET,
    HALF,
    HOLD,
    POST,
    STOCK,
    Hasty,
    Narrow,
    Serve,
    both,
    each_loop,
    head_of,
)
from tests.protocol_stage import SOON, Stage, connect, fate

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
