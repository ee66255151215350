"""One visitor's connection, which costs next to nothing: what to ask for, and how it is asked."""

import asyncio
import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Final

from bench.swift_upstream import FAILURE, STAMP, text_of

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
