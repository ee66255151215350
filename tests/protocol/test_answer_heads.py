"""A head that the protocol writes itself is what uvicorn writes, which refuses what it refuses."""

import asyncio
import logging
from typing import Any

import pytest

from protocol import ABORT, JOIN, KeyturnProtocol
from tests.in_loop import Silent
from tests.protocol.limits import Serve
from tests.protocol_stage import Client, Stage, connect, joining

REQUEST = b"POST /%s HTTP/%s\r\nHost: x\r\nContent-Length: 0\r\n%s\r\n"
LAST = REQUEST % (b"early", b"1.1", b"Connection: close\r\n")
LIKE_OURS = [(b"content-type", b"application/json"), (b"x-request-id", b"a.B_c-9 ~"), (b"x", b"")]

Headers = list[tuple[bytes, bytes]]


class Logged(KeyturnProtocol):
    """With an access log, whatever another server in this process has done to uvicorn's."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.access_log, self.access_logger = True, logging.getLogger("of a test")


class Heads(Stage):
    """Answers with the head that a test wants, and tells whether the protocol has taken it."""

    status, headers = 200, LIKE_OURS

    async def shown(self, scope: Any, receive: Any, send: Any) -> None:
        """Shows the head to the protocol, and sends it only where it is not taken."""
        await self.sent(scope, receive, joining(scope, send, self._heard.put))

    async def sent(self, scope: Any, receive: Any, send: Any) -> None:
        """The same head by ASGI alone."""
        head = {"type": "http.response.start", "status": self.status, "headers": self.headers}
        await send(head)
        await send({"type": "http.response.body", "body": b"w", "more_body": True})
        await send({"type": "http.response.body", "body": b"hole"})

    async def twice(self, scope: Any, receive: Any, send: Any) -> None:
        """Begins its answer anew."""
        send = joining(scope, send, self._heard.put)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await asyncio.sleep(0)
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def layered(self, scope: Any, receive: Any, send: Any) -> None:
        """The same behind a layer, which tells what passes it."""

        async def passing(message: Any) -> None:
            self._heard.put(message["type"])
            await send(message)

        await self.shown(scope, receive, passing)

    async def unread(self, scope: Any, receive: Any, send: Any) -> None:
        """Begins its answer before it asks for the body."""
        send = joining(scope, send, self._heard.put)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        body = (await receive())["body"]
        await send({"type": "http.response.body", "body": body})

    async def aborted(self, scope: Any, receive: Any, send: Any) -> None:
        """Shows a head after it has cut the connection."""
        scope["extensions"][ABORT]()
        await self.shown(scope, receive, send)

    async def lingering(self, scope: Any, receive: Any, send: Any) -> None:
        """Answers, and hands over what shows another head when the connection is used again."""
        await self.early(scope, receive, send)
        loop, join = asyncio.get_running_loop(), scope["extensions"][JOIN]
        head = {"type": "http.response.start", "status": 200, "headers": [(b"of", b"another")]}
        show = lambda: self._heard.put(join(send, head))  # noqa: E731
        self._heard.put(lambda: loop.call_soon_threadsafe(show))


@pytest.fixture
def stage() -> Heads:
    """The app of every server in a test."""
    return Heads()


async def answers(port: int, request: bytes) -> tuple[bytes, bytes]:
    """What a client gets that shows the head, and one that does not, but for the time of day."""
    both = []
    for path in (b"shown", b"sent"):
        async with connect(port) as client:
            await client.send(request.replace(b"/shown", b"/" + path) + LAST)
            assert await client.closed()
            lines = client.got.split(b"\r\n")
            both.append(b"\r\n".join(line for line in lines if not line.startswith(b"date: ")))
    return both[0], both[1]


@pytest.mark.parametrize(
    ("status", "more", "taken"),
    [
        (200, [], True),
        (200, [(b"vary", b"a"), (b"vary", b"b")], True),
        (200, [(b"X-Upper", b"a")], False),
        (200, [(b"x-tab", b"a\tb")], False),
        (200, [(b"x-latin", b"\xe9")], False),
        (200, [(b"content-length", b"5")], False),
        (200, [(b"connection", b"close")], False),
        (200, [(b"transfer-encoding", b"chunked")], False),
        (404, [], False),
    ],
)
async def test_a_head_says_the_same_whoever_writes_it(
    serve: Serve, stage: Heads, status: int, more: Headers, taken: bool
) -> None:
    """Ours for a plain chunked 200, and uvicorn's for all that it looks at more closely."""
    stage.status, stage.headers = status, LIKE_OURS + more
    shown, sent = await answers(serve(Silent), REQUEST % (b"shown", b"1.1", b""))
    assert shown == sent
    assert await stage.heard() is taken
    assert b"\r\nx-request-id: a.B_c-9 ~\r\nx: \r\n" in shown
    assert shown.startswith(b"HTTP/1.1 %d " % status)


@pytest.mark.parametrize("place", ["name", "value"])
@pytest.mark.parametrize("odd", [b"\r\nset-cookie: a=b", b"\n", b"\r", b"\0", b"\x7f", b"\x1b"])
async def test_a_header_cannot_bring_in_another(
    serve: Serve, stage: Heads, place: str, odd: bytes
) -> None:
    """The answer is an error without a word of it, as uvicorn's own is."""
    stage.headers = [(b"x" + odd, b"v") if place == "name" else (b"x", b"v" + odd)]
    shown, sent = await answers(serve(Silent), REQUEST % (b"shown", b"1.1", b""))
    assert shown == sent
    assert await stage.heard() is False
    assert b"set-cookie" not in shown
    assert b"whole" not in shown


@pytest.mark.parametrize("odd", list(b'()<>@,;:[]={} \t\\"'))
async def test_a_name_that_is_no_token_is_refused(serve: Serve, stage: Heads, odd: int) -> None:
    """So that it cannot be read as another header."""
    stage.headers = [(b"x" + bytes([odd]), b"v")]
    shown, sent = await answers(serve(Silent), REQUEST % (b"shown", b"1.1", b""))
    assert shown == sent
    assert b"\nx" not in shown


@pytest.mark.parametrize(
    "request_",
    [
        REQUEST % (b"shown", b"1.0", b""),
        REQUEST % (b"shown", b"1.1", b"Connection: close\r\n"),
        REQUEST.replace(b"POST", b"HEAD") % (b"shown", b"1.1", b""),
    ],
)
async def test_a_client_that_wants_less_gets_uvicorns_head(
    serve: Serve, stage: Heads, request_: bytes
) -> None:
    """One that keeps no connection, or wants no body."""
    shown, sent = await answers(serve(Silent), request_)
    assert shown == sent
    assert await stage.heard() is False


async def test_an_access_log_is_written(
    serve: Serve, stage: Heads, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the operator of another app has one, uvicorn writes the head and its line."""
    with caplog.at_level("INFO", "of a test"):
        await answers(serve(Logged), REQUEST % (b"shown", b"1.1", b""))
    assert await stage.heard() is False
    assert any('"POST /shown HTTP/1.1" 200' in record.getMessage() for record in caplog.records)


async def test_who_is_answered_is_not_told_to_go_on(serve: Serve, stage: Heads) -> None:
    """A body that is asked for after the head is not invited by another status line."""
    async with connect(serve(Silent)) as client:
        request = REQUEST.replace(b": 0", b": 5") % (b"unread", b"1.1", b"Expect: 100-continue\r\n")
        await client.send(request)
        await client.until(b"begun")
        await client.send(b"12345")
        await client.until(b"12345\r\n0\r\n\r\n")
    assert await stage.heard() is True
    assert client.got.count(b"HTTP/1.1") == 1


async def test_a_head_waits_for_a_client_that_takes_nothing(serve: Serve, stage: Heads) -> None:
    """As uvicorn's does: it is left to it while the answer before is still leaving."""
    async with connect(serve(Silent), receive_buffer=4096) as client:
        await client.send(
            b"GET /fill HTTP/1.1\r\nHost: x\r\n\r\n", REQUEST % (b"shown", b"1.1", b"")
        )
        assert await stage.heard() is False
        await client.until(b"hole\r\n0\r\n\r\n")


async def test_a_layer_in_between_sees_the_head(serve: Serve, stage: Heads) -> None:
    """It may be there to change it, or to write down how the answer began."""
    async with connect(serve(Silent)) as client:
        await client.send(REQUEST % (b"layered", b"1.1", b""))
        await client.until(b"hole\r\n0\r\n\r\n")
    assert [await stage.heard(), await stage.heard()] == [False, "http.response.start"]


async def test_an_answer_begins_once(serve: Serve, stage: Heads) -> None:
    """A second head is an error of the app, as uvicorn says, and ends the connection."""
    async with connect(serve(Silent)) as client:
        await client.send(REQUEST % (b"twice", b"1.1", b""))
        assert await client.closed()
    assert [await stage.heard(), await stage.heard()] == [True, False]
    assert client.got.count(b"HTTP/1.1") == 1


async def test_no_head_is_taken_after_the_end(serve: Serve, stage: Heads) -> None:
    """Neither for a connection that was cut, nor by one request for the answer of the next."""
    port = serve(Silent)
    async with connect(port) as client:
        await client.send(REQUEST % (b"aborted", b"1.1", b""))
        assert await stage.heard() is False
        assert await client.closed()
        assert client.got == b""
    async with connect(port) as client:
        await client.send(REQUEST % (b"lingering", b"1.1", b""))
        await client.until(b"early")
        show = await stage.heard()
        await _think(client, stage, show)
    assert client.got.count(b"HTTP/1.1 200") == 2
    assert b"another" not in client.got


async def _think(client: Client, stage: Heads, meanwhile: Any) -> None:
    await client.send(REQUEST % (b"think", b"1.1", b""))
    assert await stage.heard() == "all"
    meanwhile()
    assert await stage.heard() is False
    await stage.release()
    await client.until(b"ended")
