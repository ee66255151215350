"""A stage for tests of the protocol: an app that tells what it meets, servers, raw clients."""

import asyncio
import contextlib
import json
import queue
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from protocol import ABORT, JOIN
from tests.in_loop import SwiftServer

SOON = 0.8  # seconds in which every short limit has struck


class Stage:
    """An ASGI app that tells the test what it meets, and waits for the test where it is told to."""

    def __init__(self) -> None:
        self._heard: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._gates: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()

    async def heard(self) -> Any:
        """What the app met next."""
        return await asyncio.to_thread(self._heard.get, timeout=10)

    async def release(self) -> None:
        """Lets the next held answer end."""
        (await asyncio.to_thread(self._gates.get, timeout=10))()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await getattr(self, scope["path"][1:])(scope, receive, send)

    async def echo(self, scope: Any, receive: Any, send: Any) -> None:
        """Answers with the size of the body and the names of the headers."""
        size, more = 0, True
        while more:
            message = await receive()
            size, more = size + len(message["body"]), message["more_body"]
        names = b",".join(name for name, _ in scope["headers"])
        await _send(send, b"%d %s;" % (size, names))

    async def early(self, scope: Any, receive: Any, send: Any) -> None:
        """Answers without reading the body."""
        await _send(send, b"early")

    async def hold(self, scope: Any, receive: Any, send: Any) -> None:
        """Begins an answer and ends it when the test says so; tells when the client has gone."""
        loop, gate = asyncio.get_running_loop(), asyncio.Event()
        await _send(send, b"begun,", more_body=True)
        self._gates.put(lambda: loop.call_soon_threadsafe(gate.set))
        tasks = {loop.create_task(gate.wait()), loop.create_task(_gone(receive))}
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        self._heard.put({task.result() for task in done})
        for task in pending:
            task.cancel()
        await send({"type": "http.response.body", "body": b"ended"})

    async def think(self, scope: Any, receive: Any, send: Any) -> None:
        """Hears the whole request, and begins its answer when the test says so."""
        while (await receive())["more_body"]:
            pass
        loop, gate = asyncio.get_running_loop(), asyncio.Event()
        self._gates.put(lambda: loop.call_soon_threadsafe(gate.set))
        self._heard.put("all")
        await gate.wait()
        await _send(send, b"ended")

    async def mourn(self, scope: Any, receive: Any, send: Any) -> None:
        """Tells that the client has gone, and answers into the void."""
        self._heard.put(await _gone(receive))
        await _send(send, b"gone")

    async def flood(self, scope: Any, receive: Any, send: Any) -> None:
        """Sends until a send stalls, tells how much went out, and aborts."""
        await _send(send, b"", more_body=True)
        sent = 0
        while True:
            body = {"type": "http.response.body", "body": b"x" * 8192, "more_body": True}
            sending = asyncio.ensure_future(send(body))
            if not (await asyncio.wait({sending}, timeout=1))[0]:
                break
            sent += 8192
        self._heard.put(sent)
        if scope.get("extensions"):
            scope["extensions"][ABORT]()
        await asyncio.wait_for(asyncio.gather(sending, _gone(receive)), 10)
        self._heard.put("released")

    async def cut(self, scope: Any, receive: Any, send: Any) -> None:
        """Aborts in the middle of an answer and returns at once."""
        await _send(send, b"begun,", more_body=True)
        scope["extensions"][ABORT]()

    async def late(self, scope: Any, receive: Any, send: Any) -> None:
        """Answers, and hands over an abort that has come too late."""
        await _send(send, b"late")
        loop, abort = asyncio.get_running_loop(), scope["extensions"][ABORT]
        self._heard.put(lambda: loop.call_soon_threadsafe(abort))

    async def tick(self, scope: Any, receive: Any, send: Any) -> None:
        """Sends a little again and again until it hears that the client has gone."""
        gone = asyncio.ensure_future(_gone(receive))
        await _send(send, b"tick", more_body=True)
        heard = "never"
        with contextlib.suppress(RuntimeError):  # uvloop's, for a write to a lost connection
            for _ in range(40):
                await send({"type": "http.response.body", "body": b"tick", "more_body": True})
                if (await asyncio.wait({gone}, timeout=0.05))[0]:
                    heard = gone.result()
                    break
        gone.cancel()
        self._heard.put(heard)

    async def fill(self, scope: Any, receive: Any, send: Any) -> None:
        """Answers more than the kernel takes in, but too little to stall."""
        await _send(send, b"x" * 300_000)


async def _send(send: Any, body: bytes, more_body: bool = False) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body, "more_body": more_body})


async def _gone(receive: Any) -> str:
    while (await receive())["type"] != "http.disconnect":
        pass
    return "gone"


def joining(scope: Any, send: Any, taken: Callable[[bool], object] = bool) -> Any:
    """A `send` that shows each head to the server first, and tells whether that has taken it."""

    async def joining(message: Any) -> None:
        head = message["type"] == "http.response.start"
        took = head and scope["extensions"][JOIN](send, message)
        if head:
            taken(took)
        if not took:
            await send(message)

    return joining


@contextlib.contextmanager
def running(
    app: Stage, protocol: type[HttpToolsProtocol], sock: socket.socket, loop: str, keep_alive: float
) -> Iterator[None]:
    """A server in a thread of its own, on a socket that already listens."""
    config = Config(
        app,
        http=protocol,
        loop=loop,
        lifespan="off",
        log_config=None,
        timeout_keep_alive=keep_alive,  # type: ignore[arg-type]
        timeout_graceful_shutdown=1,
    )
    server = SwiftServer(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(20)
        sock.close()


class Client:
    """A raw connection that remembers everything it was sent."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer, self.got, self.reset = reader, writer, b"", False

    async def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.writer.write(piece)
            with contextlib.suppress(ConnectionError):
                await self.writer.drain()

    async def until(self, mark: bytes, times: int = 1) -> bytes:
        """Reads on until a mark was seen so many times."""
        async with asyncio.timeout(10):
            while self.got.count(mark) < times:
                piece = await self.reader.read(65536)
                assert piece, self.got
                self.got += piece
        return self.got

    async def closed(self, within: float = 5) -> bool:
        """Whether the server ends the connection in time, and not before it said all it says."""
        try:
            async with asyncio.timeout(within):
                while piece := await self.reader.read(65536):
                    self.got += piece
        except TimeoutError:
            return False
        except ConnectionError:
            self.reset = True
        return True

    def problem(self) -> dict[str, Any]:
        """The body of the only answer, which must be a problem."""
        head, _, body = self.got.partition(b"\r\n\r\n")
        assert b"content-type: application/problem+json" in head
        assert b"connection: close" in head
        assert b"content-length: %d\r\n" % len(body) in head + b"\r\n"
        return dict(json.loads(body))


@contextlib.asynccontextmanager
async def connect(port: int, receive_buffer: int | None = None) -> AsyncIterator[Client]:
    """A client of the server at this port."""
    sock = socket.socket()
    if receive_buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
    client = Client(*await asyncio.open_connection(sock=sock))
    try:
        yield client
    finally:
        client.writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await client.writer.wait_closed()


async def fate(port: int, *pieces: bytes, within: float = 5) -> tuple[bool, bytes]:
    """Whether the server closes after these bytes, and what it said until then."""
    async with connect(port) as client:
        await client.send(*pieces)
        return await client.closed(within), client.got
