"""The wire by hand: an upstream that says what the test says, byte by byte, and raw turns."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
from aiohttp import web

from tests.completions.responses_stream import delta, ended
from tests.stage import CHAT, RESPONSES, Visitor

CLOSED_WITHIN = 0.5  # seconds from a hang-up until upstream is closed
DONE = b"data: [DONE]\n\n"


def event(text: str, finish: str | None = None) -> bytes:
    """One chunk of a chat stream."""
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    return b"data: " + json.dumps({"id": "c1", "choices": [choice]}).encode() + b"\n\n"


WHOLE = {"id": "c1", "choices": [{"index": 0, "message": {"content": "hi"}}]}
END = event("", finish="stop") + DONE


@dataclass(frozen=True)
class Spoken:
    """One of the two APIs as upstream speaks it: a word, a good end, and the last event of it."""

    path: str
    word: Callable[[str], bytes]
    end: bytes
    last: bytes


BY_CHAT = Spoken(CHAT, event, END, DONE)
BY_RESPONSES = Spoken(RESPONSES, delta, ended(), ended())


class Call:
    """One POST that reached the upstream, to be answered by the test."""

    def __init__(
        self, head: bytes, body: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.head = head
        self.body = body
        self._reader = reader
        self._writer = writer

    async def say_raw(self, data: bytes) -> None:
        """Send these bytes and nothing else."""
        self._writer.write(data)
        with contextlib.suppress(ConnectionError):
            await self._writer.drain()

    async def begin(
        self, status: str = "200 OK", kind: str = "text/event-stream", *more: str
    ) -> None:
        """Send the head of a chunked answer; `more` are further header lines."""
        lines = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", "Connection: close", *more]
        lines.append("Transfer-Encoding: chunked")
        await self.say_raw("\r\n".join([*lines, "", ""]).encode())

    async def say(self, data: bytes) -> None:
        """Send a part of the body."""
        await self.say_raw(b"%x\r\n%s\r\n" % (len(data), data))

    async def end(self, data: bytes = b"") -> None:
        """Send the last of the body."""
        if data:
            await self.say(data)
        await self.say_raw(b"0\r\n\r\n")

    async def whole(self, status: str, kind: str, body: bytes, *more: str) -> None:
        """Send a whole answer."""
        await self.begin(status, kind, *more)
        await self.end(body)

    def close(self) -> None:
        """Close the connection when all that was said has left."""
        self._writer.close()

    def cut(self) -> None:
        """Reset the connection."""
        sock = self._writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self._writer.transport.abort()

    async def closed(self, within: float) -> bool:
        """Whether the server under test closes the connection in time."""
        with contextlib.suppress(ConnectionError):
            try:
                async with asyncio.timeout(within):
                    assert not await self._reader.read(1)
            except TimeoutError:
                return False
        return True


class ByHand:
    """An upstream whose every answer the test gives."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.posts = 0
        self.calls: asyncio.Queue[Call] = asyncio.Queue()

    async def call(self) -> Call:
        """The next POST that came in."""
        return await asyncio.wait_for(self.calls.get(), 10)

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read the requests of one connection; each is handed over as it came."""
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            lines = head.lower().split(b"\r\n")
            sizes = [int(line[15:]) for line in lines if line.startswith(b"content-length:")]
            body = await reader.readexactly(sizes[0])
            self.posts += 1
            self.calls.put_nowait(Call(head, body, reader, writer))


@asynccontextmanager
async def upstream_by_hand() -> AsyncIterator[ByHand]:
    """An upstream in this loop; it takes one POST per connection."""
    writers: list[asyncio.StreamWriter] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        await hand.accept(reader, writer)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    hand = ByHand(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1")
    try:
        yield hand
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
        await server.wait_closed()


@asynccontextmanager
async def upstream_by_function(
    complete: Callable[[web.Request], Awaitable[web.StreamResponse]],
) -> AsyncIterator[str]:
    """An upstream that answers every POST by a function, and keeps connections; yields its URL."""
    app = web.Application()
    for path in (CHAT, RESPONSES):
        app.router.add_post(path, complete)
    runner = web.AppRunner(app, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def asking(visitor: Visitor, **changed: Any) -> AsyncIterator["asyncio.Task[Any]"]:
    """A turn under way: a task that ends with the `aiohttp.ClientResponse`, its body unread."""
    headers = visitor.headers(**changed.pop("headers", {}))
    path = changed.pop("path", visitor.path)
    body = changed.pop("data", None) or visitor.body(**changed)
    request = visitor.session.post(visitor.url + path, data=body, headers=headers)

    async def ask() -> aiohttp.ClientResponse:
        return await request

    task = asyncio.create_task(ask())
    try:
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, aiohttp.ClientError):
            (await task).close()


@asynccontextmanager
async def streaming(
    visitor: Visitor, hand: ByHand, **changed: Any
) -> AsyncIterator[tuple[aiohttp.ClientResponse, Call]]:
    """A turn whose stream has begun: what the visitor reads, and the pen of upstream."""
    async with asking(visitor, **changed) as asked:
        call = await hand.call()
        await call.begin()
        answer = await asked
        assert answer.status == 200, await answer.read()
        visitor.token = answer.headers.get("Keyturn-Token") or visitor.token
        yield answer, call


def raw_turn(visitor: Visitor, body: bytes | None = None) -> bytes:
    """A good turn as it stands on the wire."""
    body = visitor.body() if body is None else body
    lines = [f"POST {visitor.path} HTTP/1.1", "Host: keyturn", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in visitor.headers().items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


@contextlib.contextmanager
def deaf(port: int, request: bytes) -> Iterator[socket.socket]:
    """A client that sends its request and reads nothing."""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", port))
        client.sendall(request)
        yield client


def port_of(url: str) -> int:
    """The port at the end of a server's URL."""
    return int(url.rpartition(":")[2])


def free_port() -> int:
    """A port of 127.0.0.1 on which nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
