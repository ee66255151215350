"""Those who ask: a client that costs next to nothing, so that what it asks is what is measured.

A `Crowd` shares out turns, `arrive` asks at a rate whatever becomes of it, `Streams` are many that
last. All run in the loop of whoever measures. Where a door is gated, every connection is a visitor
who shows the token of the turn before.
"""

import asyncio
import json
import random
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

from bench.swift_upstream import FAILURE, STAMP, text_of

_OPENERS: Final = 32
OPENING_LIMIT: Final = 10.0  # seconds until a connection stands
_TAIL: Final = 40  # bytes that may hold the beginning of a stamp, or of the end
_BORDER: Final = b"\r\n"  # of head and body
_LAST_CHUNK: Final = b"\r\n0\r\n\r\n"
_TOKEN: Final = re.compile(rb"\r\nkeyturn-token: *([^\r]+)", re.IGNORECASE)
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Shape:
    """An answer to ask for; a `gap_ms` of 0 is all chunks at once, `chunks` of 0 a failure."""

    stream: bool
    chunks: int = 50
    first_ms: int = 0
    gap_ms: int = 0

    @property
    def lasts(self) -> float:
        """Seconds until upstream has written all of it."""
        return (self.first_ms + self.gap_ms * max(self.chunks - 1, 0)) / 1000


@dataclass(frozen=True, slots=True)
class Door:
    """Where to ask, and what to show."""

    port: int
    headers: tuple[tuple[str, str], ...] = ()
    gated: bool = False


@cache
def body_of(shape: Shape) -> bytes:
    """A turn of a short conversation."""
    play = text_of(shape.chunks, shape.first_ms, shape.gap_ms) if shape.chunks else FAILURE
    said = [
        ("user", "What is a one-time token, and why would a chat page need one for each turn?"),
        ("assistant", "It is a secret that is honoured once. " * 8),
        ("user", f"And what does it cost to check it?\n{play}"),
    ]
    messages = [{"role": role, "content": content} for role, content in said]
    more = {"stream_options": {"include_usage": True}} if shape.stream else {}
    asked = {"model": "gpt-4.1-mini", "messages": messages, "stream": shape.stream, **more}
    return json.dumps(asked).encode()


@cache
def _head_of(door: Door, shape: Shape) -> bytes:
    headers = {
        "Host": f"127.0.0.1:{door.port}",
        "Content-Type": "application/json",
        "Content-Length": str(len(body_of(shape))),
        "Keyturn-Fingerprint": "fingerprint-of-a-visitor",
        **dict(door.headers),
    }
    lines = [f"{name}: {value}\r\n" for name, value in headers.items()]
    return ("POST /v1/chat/completions HTTP/1.1\r\n" + "".join(lines)).encode()


def request(door: Door, shape: Shape, token: bytes) -> bytes:
    """A request as it is now sent."""
    shown = b"Keyturn-Timestamp: %d\r\n" % (time.time_ns() // 1_000_000)
    if door.gated:
        shown += b"Authorization: Bearer %b\r\n" % token
    return b"".join((_head_of(door, shape), shown, b"\r\n", body_of(shape)))


class Connection(asyncio.Protocol):
    """One connection, which asks for one answer at a time and tells how it ended.

    Of the running answer or the last: when it was asked for, when its body began (0 if it did not),
    its status, whether it came whole, and the body that was heard, whose stamps, where they are
    told, are taken out.
    """

    def __init__(self, door: Door, ended: "Callable[[Connection], None]") -> None:
        self._door = door
        self._ended = ended
        self.on_stamp: Callable[[int, int], None] | None = None
        self.token = b"keyturn"
        self.busy = self.closed = False
        self._reset()

    def _reset(self) -> None:
        self.asked_ns, self.first_ns = time.monotonic_ns(), 0
        self.status, self.done = 0, False
        self.heard = b""
        self._length: int | None = None  # of what is heard, where it is known

    def ask(self, shape: Shape) -> None:
        """Ask for an answer of this shape."""
        self._reset()
        self.busy = True
        self._transport.write(request(self._door, shape, self.token))

    def close(self) -> None:
        """Hang up."""
        self._transport.abort()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._end()

    def data_received(self, data: bytes) -> None:
        self.heard += data
        if not self.status and not self._read_head():
            return
        if not self.first_ns and len(self.heard) > len(_BORDER):
            self.first_ns = time.monotonic_ns()
        if self._length is not None:
            self.done = len(self.heard) >= self._length
        else:
            self.done = self.heard.endswith(_LAST_CHUNK)
        if self.on_stamp:
            self._read_stamps(self.on_stamp)
        if self.done:
            self._end()

    def _read_head(self) -> bool:
        head, end, rest = self.heard.partition(b"\r\n\r\n")
        if not end:
            return False
        self.status = int(head[9:12])
        if token := _TOKEN.search(head):
            self.token = token[1]
        if length := _LENGTH.search(head):
            self._length = int(length[1]) + len(_BORDER)
        self.heard = _BORDER + rest
        return True

    def _read_stamps(self, tell: Callable[[int, int], None]) -> None:
        now, end = time.monotonic_ns(), 0
        for stamp in STAMP.finditer(self.heard):
            tell(int(stamp[1]), now)
            end = stamp.end()
        self.heard = self.heard[max(end, len(self.heard) - _TAIL) :]

    def _end(self) -> None:
        if self.busy:
            self.busy = False
            self._ended(self)


async def connect(door: Door, ended: Callable[[Connection], None]) -> Connection:
    """A connection that stands."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(OPENING_LIMIT):
        _, connection = await loop.create_connection(
            lambda: Connection(door, ended), "127.0.0.1", door.port
        )
    return connection


async def ask_once(door: Door, shape: Shape, limit: float, token: bytes = b"keyturn") -> Connection:
    """One answer on a connection of its own, which is closed; the last token is among it."""
    over = asyncio.Event()
    connection = await connect(door, lambda _: over.set())
    connection.token = token
    try:
        connection.ask(shape)
        async with asyncio.timeout(limit):
            await over.wait()
    finally:
        connection.close()
    return connection


@dataclass(slots=True)
class Tally:
    """How many answers came whole, and how many did not."""

    whole: int = 0
    broken: int = 0

    def take(self, connection: Connection) -> bool:
        """Count an answer that ended; whether it was whole."""
        good = connection.done and connection.status == 200
        self.whole += good
        self.broken += not good
        return good


class Crowd:
    """Connections that share out turns, each asking as soon as it was answered."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._connections: list[Connection] = []
        self._opening: set[asyncio.Task[None]] = set()
        self._shapes: Iterator[Shape] = iter(())
        self._tally, self._asking = Tally(), 0
        self._over = asyncio.Event()

    async def __aenter__(self) -> "Crowd":
        return self

    async def __aexit__(self, *_: Any) -> None:
        self._shapes = iter(())
        for each in self._connections:
            each.close()
        await asyncio.gather(*self._opening, return_exceptions=True)

    async def grow(self, count: int) -> None:
        """Open so many connections more."""
        for _ in range(count):
            self._connections.append(await connect(self._door, self._ended))

    async def take(self, shapes: Iterable[Shape], limit: float) -> Tally:
        """Take these turns and wait for the last answer; raises `TimeoutError`."""
        self._shapes, self._tally, self._over = iter(shapes), Tally(), asyncio.Event()
        self._asking = 1  # us, until all have begun
        for each in tuple(self._connections):
            self._ask(each)
        self._let_go()
        async with asyncio.timeout(limit):
            await self._over.wait()
        return self._tally

    def _ask(self, connection: Connection) -> None:
        if shape := next(self._shapes, None):
            self._asking += 1
            connection.ask(shape)

    def _ended(self, connection: Connection) -> None:
        self._tally.take(connection)
        if connection.closed:
            self._connections.remove(connection)
            task = asyncio.get_running_loop().create_task(self._replace())
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)
        else:
            self._ask(connection)
            self._let_go()

    async def _replace(self) -> None:
        """Somebody else for whoever lost the connection."""
        try:
            await self.grow(1)
            self._ask(self._connections[-1])
        finally:
            self._let_go()

    def _let_go(self) -> None:
        self._asking -= 1
        if not self._asking:
            self._over.set()


@dataclass(slots=True)
class Arrivals:
    """What became of answers that were asked for at a rate; times in ms."""

    tally: Tally = field(default_factory=Tally)
    first_ms: list[float] = field(default_factory=list)
    chunk_ms: list[float] = field(default_factory=list)
    late: int = 0


async def arrive(door: Door, shape: Shape, rate: float, seconds: float, seed: int) -> Arrivals:
    """Ask as people come, at random and whether or not the others were answered."""
    found, idle, rng = Arrivals(), list[Connection](), random.Random(seed)
    every, asking, over = set[Connection](), set[Connection](), asyncio.Event()

    def ended(connection: Connection) -> None:
        if found.tally.take(connection):
            found.first_ms.append((connection.first_ns - connection.asked_ns) / 1e6)
        asking.discard(connection)
        if not connection.closed:
            idle.append(connection)
        if not asking:
            over.set()

    def stamped(written_ns: int, now_ns: int) -> None:
        found.chunk_ms.append((now_ns - written_ns) / 1e6)

    async def ask() -> None:
        connection = idle.pop() if idle else await connect(door, ended)
        if connection.closed:
            return await ask()
        connection.on_stamp = stamped
        every.add(connection)
        asking.add(connection)
        over.clear()
        return connection.ask(shape)

    async with asyncio.TaskGroup() as group:
        loop = asyncio.get_running_loop()
        due, end = loop.time(), loop.time() + seconds
        while (due := due + rng.expovariate(rate)) < end:
            await asyncio.sleep(max(0.0, due - loop.time()))
            group.create_task(ask())
    with suppress(TimeoutError):
        async with asyncio.timeout(5 * shape.lasts + 2):
            await over.wait()
    found.late = len(asking)
    for connection in every:
        connection.close()
    return found


@dataclass(slots=True)
class Delivery:
    """Chunks of open streams: how many came in time, and each one's delay in ms."""

    on_time: int
    delays_ms: list[float]


class Streams:
    """Streams that stay open, and the delays of what comes in them."""

    def __init__(self, door: Door, shape: Shape) -> None:
        self._door, self._shape = door, shape
        self._connections: list[Connection] = []
        self._came: list[tuple[int, int]] = []  # written and heard, ns

    async def __aenter__(self) -> "Streams":
        return self

    async def __aexit__(self, *_: Any) -> None:
        for each in self._connections:
            each.close()

    @property
    def open(self) -> int:
        """How many have begun and not ended."""
        return sum(each.first_ns > 0 and each.busy for each in self._connections)

    async def grow_to(self, count: int, limit: float) -> None:
        """Open more, some at a time, and wait until each has begun, for so many seconds at most."""
        wanted = iter(range(count - len(self._connections)))

        async def opener() -> None:
            for _ in wanted:
                await self._open_one()

        with suppress(TimeoutError):
            async with asyncio.timeout(limit), asyncio.TaskGroup() as group:
                for _ in range(_OPENERS):
                    group.create_task(opener())

    async def _open_one(self) -> None:
        begun = asyncio.Event()

        def stamped(written_ns: int, now_ns: int) -> None:
            begun.set()
            self._came.append((written_ns, now_ns))

        connection = await connect(self._door, lambda _: begun.set())
        connection.on_stamp = stamped
        self._connections.append(connection)
        connection.ask(self._shape)
        await begun.wait()

    def delivered(self, since_ns: int, until_ns: int, on_time_ms: float) -> Delivery:
        """What came of that which was written in this span of time."""
        spans = (now - written for written, now in self._came if since_ns < written <= until_ns)
        delays = [span / 1e6 for span in spans]
        return Delivery(sum(delay <= on_time_ms for delay in delays), delays)
