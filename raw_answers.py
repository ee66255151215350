"""Answers past ASGI: what leaves in one write, heads past uvicorn's look at each of their lines,
and refusals that no app can send."""

import asyncio
import secrets
import time
from typing import Final, cast

from starlette.types import Message, Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from problems import PROBLEMS, Headers, body_of, headers_of
from security.errors import Code, Rejection

_NAME_BYTES: Final = b"abcdefghijklmnopqrstuvwxyz0123456789-"
_VALUE_BYTES: Final = bytes(range(0x20, 0x7F))
_CHUNKED: Final = (b"transfer-encoding", b"chunked")
_WEIGHED: Final = frozenset({b"connection", b"content-length", b"transfer-encoding"})


class Joined:
    """Stands in for a cycle's transport: the head of an answer and what follows it in the same turn
    of the event loop are one write, which is one call of the system."""

    def __init__(self, cycle: RequestResponseCycle, loop: asyncio.AbstractEventLoop) -> None:
        self._cycle, self._transport, self._loop = cycle, cycle.transport, loop
        self._head = b""
        self._has_left = False

    def write(self, data: bytes) -> None:
        """Keep the head, and let it leave with the second piece."""
        if self._head:
            self._leave(self._head + data)
        else:
            self._head = data
            self._loop.call_soon(self._leave_alone)

    def is_closing(self) -> bool:
        """Whether the connection is."""
        return self._transport.is_closing()

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()

    def _leave_alone(self) -> None:
        if not self._has_left and not self._transport.is_closing():
            self._leave(self._head)

    def _leave(self, data: bytes) -> None:
        self._has_left = True
        self._cycle.transport = self._transport
        self._transport.write(data)


def begin_joined(
    cycle: RequestResponseCycle, loop: asyncio.AbstractEventLoop, send: Send, head: Message
) -> bool:
    """Have the head of an answer leave with what follows it; whether it need not be sent."""
    if cycle.response_started or cycle.scope["method"] == "HEAD":  # whose answer is a head alone
        return False
    if not isinstance(cycle.transport, Joined):
        cycle.transport = cast(asyncio.Transport, Joined(cycle, loop))
    at_once = send == cycle.send and not cycle.disconnected and not cycle.flow.write_paused
    if at_once and cycle.keep_alive and not cycle.access_log and head["status"] == 200:
        written = chunked_head([*cycle.default_headers, *head.get("headers", ())])
        if written is not None:  # what `cycle.send` would do
            cycle.response_started = cycle.chunked_encoding = True
            cycle.waiting_for_100_continue = False
            cycle.transport.write(written)
    return cycle.response_started


def chunked_head(headers: Headers) -> bytes | None:
    """The head of a chunked 200, byte for byte as uvicorn writes it.

    None where uvicorn would refuse a header, or learn something from it: it is left to do so.
    """
    names, values = zip(*headers, _CHUNKED, strict=True)
    odd = b"".join(names).translate(None, _NAME_BYTES)
    if odd or b"".join(values).translate(None, _VALUE_BYTES) or not _WEIGHED.isdisjoint(names[:-1]):
        return None
    return STATUS_LINE[200] + b"\r\n".join(map(b": ".join, [*headers, _CHUNKED])) + b"\r\n\r\n"


def refusal(code: Code, defaults: Headers) -> bytes:
    """The whole answer for a head that the app never sees, with these headers on top."""
    rejection, request_id = Rejection(code), secrets.token_hex(16)
    body = body_of(rejection, request_id=request_id, now_ms=time.time_ns() // 1_000_000)
    headers = [
        *defaults,
        *headers_of(rejection),
        (b"x-request-id", request_id.encode()),
        (b"x-content-type-options", b"nosniff"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    lines = [STATUS_LINE[PROBLEMS[code].status]]
    lines += [name + b": " + value + b"\r\n" for name, value in headers]
    return b"".join([*lines, b"\r\n", body])
