"""An answer that is known whole leaves in one piece, and who waits is told of a hang-up."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn

from exchange import ClientGone, Exchange
from patience import Patience
from protocol import GONE, HEARD, WAITS, KeyturnProtocol
from tests import in_loop
from tests.protocol_stage import Stage, connect, joining, running
from tests.stage import Server, Visitor, visiting

REQUEST = b"%s /%s HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"


class Whole(Stage):
    """Answers that are whole at once, joined or not."""

    async def joined(self, scope: Any, receive: Any, send: Any) -> None:
        """A head and a body, after asking for one piece."""
        await self.apart(scope, receive, joining(scope, send))

    async def apart(self, scope: Any, receive: Any, send: Any) -> None:
        """The same without asking."""
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"whole"})

    async def soon(self, scope: Any, receive: Any, send: Any) -> None:
        """The same, but the body comes a turn of the event loop later."""
        await joining(scope, send)({"type": "http.response.start", "status": 200, "headers": []})
        await asyncio.sleep(0)
        await send({"type": "http.response.body", "body": b"whole"})

    async def empty(self, scope: Any, receive: Any, send: Any) -> None:
        """An answer that is a head alone."""
        await joining(scope, send)({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def breaks(self, scope: Any, receive: Any, send: Any) -> None:
        """A head that is not sent before the app fails."""
        await joining(scope, send)({"type": "http.response.start", "status": 200, "headers": []})
        raise KeyError

    async def hears(self, scope: Any, receive: Any, send: Any) -> None:
        """Tells before and after it has read what the protocol says of the connection."""
        offered = scope["extensions"]
        self._heard.put((offered[HEARD](), offered[WAITS]()))
        while (await receive())["more_body"]:
            pass
        self._heard.put((offered[HEARD](), offered[WAITS]()))
        await self.apart(scope, receive, send)

    async def leaves(self, scope: Any, receive: Any, send: Any) -> None:
        """Waits by an exchange, and tells what ended that; nobody calls `receive` meanwhile."""
        tasks = len(asyncio.all_tasks())
        exchange = Exchange(scope, receive, send, Patience())
        await exchange.start(200, [])
        with contextlib.suppress(ClientGone):
            async with exchange.present():
                await exchange.write(b"begun")
                more = len(asyncio.all_tasks()) - tasks
                await asyncio.Event().wait()
        scope["extensions"][GONE](lambda: self._heard.put(f"gone, {more} tasks more"))


class Recorder:
    """A transport that notes what is written to it."""

    def __init__(self, transport: asyncio.Transport, written: list[bytes]) -> None:
        self._transport = transport
        self._written = written

    def write(self, data: bytes) -> None:
        self._written.append(data)
        self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


@pytest.fixture
def written() -> list[bytes]:
    """Every write of the server."""
    return []


@pytest.fixture
def stage() -> Whole:
    """Its app."""
    return Whole()


def noting(written: list[bytes]) -> type[KeyturnProtocol]:
    """The protocol whose writes are noted."""

    class Noted(in_loop.Silent):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(Recorder(transport, written))  # type: ignore[arg-type]

    return Noted


@pytest.fixture
def port(stage: Whole, written: list[bytes]) -> Iterator[int]:
    """A server whose writes are noted."""
    sock = socket.create_server(("127.0.0.1", 0))
    with running(stage, noting(written), sock, "uvloop", 30):
        yield sock.getsockname()[1]


async def test_a_whole_answer_is_one_write(port: int, written: list[bytes]) -> None:
    """Head and body together, time after time; without asking they are two, which say the same, and
    so they are where the body is not there yet: a head does not wait."""
    async with connect(port) as client:
        for times in (1, 2):
            await client.send(REQUEST % (b"POST", b"joined"))
            await client.until(b"0\r\n\r\n", times=times)
        for times, asked in enumerate((b"apart", b"soon"), 3):
            await client.send(REQUEST % (b"POST", asked))
            await client.until(b"0\r\n\r\n", times=times)
    first, second, head, body, *apart = written
    assert first == second == head + body
    assert b"whole" not in head
    assert apart == [head, body]


async def test_a_head_without_a_body_is_not_kept(port: int) -> None:
    """Neither that of a HEAD nor that of a 204, and the next answer follows."""
    async with connect(port) as client:
        await client.send(REQUEST % (b"HEAD", b"joined"))
        await client.until(b"\r\n\r\n")
        await client.send(REQUEST % (b"POST", b"empty"))
        assert b"204 No Content" in await client.until(b"\r\n\r\n", times=2)
        await client.send(REQUEST % (b"POST", b"joined"))
        await client.until(b"whole")


async def test_an_app_that_breaks_in_between_ends_the_connection(port: int) -> None:
    """There is nothing to send any more."""
    async with connect(port) as client:
        await client.send(REQUEST % (b"POST", b"breaks"))
        assert await client.closed()
        assert client.got == b""


async def test_who_waits_is_told_of_a_hang_up_without_a_task(port: int, stage: Whole) -> None:
    """By the protocol itself, also where the client had gone before one listens."""
    async with connect(port) as client:
        await client.send(REQUEST % (b"POST", b"leaves"))
        await client.until(b"begun")
    assert await stage.heard() == "gone, 0 tasks more"


async def test_a_turn_in_one_piece_and_a_refusal_have_their_length_or_their_end(
    server: Server, visitor: Visitor
) -> None:
    """What a visitor gets of a whole answer is what it was: chunked, or counted for a problem."""
    answer = await visitor.say(stream=False)
    assert (answer.status, answer.headers.get("Transfer-Encoding")) == (200, "chunked")
    refused = await visitor.say(n=7)
    assert (refused.status, int(refused.headers["Content-Length"])) == (400, len(refused.body))


async def test_the_head_of_a_turn_leaves_with_what_follows(
    server: Server, written: list[bytes]
) -> None:
    """That of an answer in one piece, and that of a problem."""
    config = uvicorn.Config(
        server.app, port=0, http=noting(written), lifespan="off", log_config=None
    )
    async with in_loop.running(in_loop.SwiftServer(config)) as url, visiting(url) as visitor:
        said = [await visitor.say(stream=False), await visitor.say(n=7)]
    for answer, whole in zip(said, written, strict=True):
        assert whole.startswith(b"HTTP/1.1 %d " % answer.status)
        assert answer.body in whole


async def test_a_held_head_leaves_with_the_end_and_counts_as_begun_only_then() -> None:
    """Until then another answer can still be given; where nobody joins them they are two."""
    got: list[Any] = []

    async def send(message: Any) -> None:
        got.append(message)

    exchange = Exchange({"headers": []}, asyncio.Event().wait, send)  # type: ignore[arg-type]
    exchange.hold(200, [(b"a", b"b")])
    assert (exchange.started, got) == (False, [])
    await exchange.end(b"whole")
    assert exchange.started
    head, body = got
    assert (head["status"], head["headers"], body["body"]) == (200, [(b"a", b"b")], b"whole")


@pytest.mark.parametrize(
    ("heard", "waits", "timers"), [(True, False, [0, 0]), (False, True, [1, 1])]
)
async def test_a_timer_is_set_only_where_something_is_waited_for(
    heard: bool, waits: bool, timers: list[int]
) -> None:
    """The server says whether all has come, and whether the client takes what it is sent."""
    loop: Any = asyncio.get_running_loop()
    before, set_for = len(loop._scheduled), list[int]()

    async def receive() -> Any:
        set_for.append(len(loop._scheduled) - before)
        return {"type": "http.request", "body": b"all"}

    async def send(_: Any) -> None:
        set_for.append(len(loop._scheduled) - before)

    offered = {"keyturn.heard": lambda: heard, "keyturn.waits": lambda: waits}
    exchange = Exchange({"headers": [], "extensions": offered}, receive, send)
    assert await exchange.read_body(3) == b"all"
    before = len(loop._scheduled)  # a cancelled one leaves when it is due
    await exchange.end(b"")
    assert set_for == timers


async def test_the_protocol_says_what_is_still_to_come(port: int, stage: Whole) -> None:
    """A body that is on its way is waited for, one that is there is not."""
    async with connect(port) as client:
        await client.send(REQUEST.replace(b": 0", b": 2") % (b"POST", b"hears"))
        assert await stage.heard() == (False, False)
        await client.send(b"ab")
        assert await stage.heard() == (True, False)
        await client.until(b"whole")
        await client.send(REQUEST % (b"POST", b"hears"))
        assert await stage.heard() == (True, False)
        assert await stage.heard() == (True, False)
