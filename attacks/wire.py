"""HTTP/1.1 by hand: bytes go out exactly as they were written, and answers are read strictly.

No HTTP library: each would mend, refuse or hide half of what is sent here.
"""

import asyncio
import contextlib
import json
import re
import socket
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

CLOSED: Final = "closed"  # told by a server that ends the connection without a word
OPEN: Final = "open"  # told by one that says nothing and goes on waiting
QUIET: Final = (
    0.3  # seconds without a byte after which a server that has answered has no more to say
)
LIMIT: Final = 20.0  # seconds for one connection, unless said otherwise

_STATUS: Final = re.compile(rb"HTTP/1\.[01] ([0-9]{3})[^\r\n]*\r\n")


@dataclass(frozen=True)
class Answer:
    """One answer as it stood on the wire; status 0 stands for none."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    whole: bool = True
    silence: str = CLOSED

    def header(self, name: str) -> str | None:
        """The first value of a header."""
        return next((value for key, value in self.headers if key == name.lower()), None)

    @property
    def token(self) -> str | None:
        """The next token."""
        return self.header("keyturn-token")

    @property
    def code(self) -> str | None:
        """The code of a problem."""
        if self.header("content-type") != "application/problem+json" or not self.body:
            return None
        with contextlib.suppress(ValueError):
            return str(json.loads(self.body)["code"])
        return "unreadable"

    @property
    def chain(self) -> str | None:
        """What a problem says of the token."""
        return str(json.loads(self.body).get("chain")) if self.code else None

    @property
    def told(self) -> str:
        """What was told, in short: "200", "401 token_reused", "closed", "200 cut"."""
        if not self.status:
            return self.silence
        words = [str(self.status), self.code or "", "" if self.whole else "cut"]
        return " ".join(word for word in words if word)

    @property
    def raw(self) -> bytes:
        """All that was said, for searching."""
        lines = (f"{name}: {value}\r\n".encode("latin-1") for name, value in self.headers)
        return b"".join(lines) + b"\r\n" + self.body


def read_answers(data: bytes, *, bodiless: bool = False) -> list[Answer]:
    """Every answer in what a server sent; the last one may be cut.

    `bodiless`: answers to HEAD. What is no answer comes back as one with status 999.
    """
    answers = []
    while data:
        answer, data = _read_answer(data, bodiless)
        answers.append(answer)
    return answers


def _read_answer(data: bytes, bodiless: bool) -> tuple[Answer, bytes]:
    match = _STATUS.match(data)
    head, border, rest = data.partition(b"\r\n\r\n")
    if match is None:
        return Answer(999, body=data, whole=False), b""
    status, headers = int(match[1]), tuple(_fields(head))
    if not border:
        return Answer(status, headers, whole=False), b""
    if bodiless or status < 200 or status in (204, 304):
        return Answer(status, headers), rest
    body, rest, whole = _body(dict(headers), rest)
    return Answer(status, headers, body, whole), rest


def _fields(head: bytes) -> Iterator[tuple[str, str]]:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        yield name.decode("latin-1").lower(), value.strip(b" \t").decode("latin-1")


def _body(headers: dict[str, str], rest: bytes) -> tuple[bytes, bytes, bool]:
    """The body, what follows it, and whether it came to its end."""
    if "transfer-encoding" in headers:
        return _chunks(rest)
    if "content-length" in headers:
        size = int(headers["content-length"])
        return rest[:size], rest[size:], len(rest) >= size
    return rest, b"", True


def _chunks(rest: bytes) -> tuple[bytes, bytes, bool]:
    body = b""
    while True:
        line, border, after = rest.partition(b"\r\n")
        if not border or not re.fullmatch(rb"[0-9a-fA-F]{1,8}", line):
            return body, b"", False
        size = int(line, 16)
        if len(after) < size + 2:
            return body + after[:size], b"", False
        body, rest = body + after[:size], after[size + 2 :]
        if size == 0:
            return body, rest, True


@dataclass
class Connection:
    """A raw connection; `got` is all that came back."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    got: bytes = b""
    closed: bool = False
    began: float = field(default_factory=time.monotonic)

    async def send(self, data: bytes) -> None:
        """Send bytes; a server that has hung up is no failure here."""
        self.writer.write(data)
        with contextlib.suppress(ConnectionError):
            await self.writer.drain()

    async def drip(self, data: bytes, gap: float, size: int = 1) -> None:
        """Send a little at a time, until all is sent or the server has had enough."""
        listening = asyncio.create_task(self._listen())
        for start in range(0, len(data), size):
            await self.send(data[start : start + size])
            if (await asyncio.wait({listening}, timeout=gap))[0]:
                break
        listening.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await listening

    async def _listen(self) -> None:
        while not self.closed:
            await self._read_some()

    async def _read_some(self) -> None:
        try:
            piece = await self.reader.read(1 << 16)
        except ConnectionError:
            piece = b""
        self.got += piece
        self.closed = not piece

    async def answers(
        self, *, limit: float = LIMIT, quiet: float | None = None, bodiless: bool = False
    ) -> list[Answer]:
        """What the server says until it closes, or is quiet for so long after an answer."""
        end = time.monotonic() + limit
        while not self.closed:
            complete = quiet is not None and self._complete(bodiless)
            patience = min(quiet or limit, end - time.monotonic()) if complete else None
            try:
                async with asyncio.timeout(
                    end - time.monotonic() if patience is None else patience
                ):
                    await self._read_some()
            except TimeoutError:
                break
        found = read_answers(self.got, bodiless=bodiless)
        return found or [Answer(0, silence=CLOSED if self.closed else OPEN)]

    async def until(self, mark: bytes, limit: float = LIMIT) -> None:
        """Read on until this was seen, or the server has closed."""
        async with asyncio.timeout(limit):
            while mark not in self.got and not self.closed:
                await self._read_some()

    def _complete(self, bodiless: bool) -> bool:
        found = read_answers(self.got, bodiless=bodiless)
        return bool(found) and found[-1].whole and found[-1].status >= 200

    def cut(self) -> None:
        """Leave at once."""
        self.writer.transport.abort()


@contextlib.asynccontextmanager
async def connected(port: int, receive_buffer: int | None = None) -> AsyncIterator[Connection]:
    """A connection to this port of 127.0.0.1."""
    sock = socket.socket()
    if receive_buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
    connection = Connection(*await asyncio.open_connection(sock=sock))
    try:
        yield connection
    finally:
        connection.cut()
        with contextlib.suppress(ConnectionError):
            await connection.writer.wait_closed()


def request(
    method: str | bytes,
    target: str | bytes,
    headers: Iterable[tuple[str | bytes, str | bytes]],
    body: bytes = b"",
    version: str | bytes = "HTTP/1.1",
) -> bytes:
    """A request, written out; nothing is added or checked."""
    line = b" ".join(_bytes(part) for part in (method, target, version))
    fields = [_bytes(name) + b": " + _bytes(value) for name, value in headers]
    return b"\r\n".join([line, *fields, b"", body])


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("utf-8")
