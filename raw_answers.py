"""Answers past ASGI: what leaves in one write, and refusals that no app can send."""

import secrets
import time

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from problems import PROBLEMS, Headers, body_of, headers_of
from security.errors import Code, Rejection


class Joined:
    """Stands in for a cycle's transport until the head of the answer and what follows it are one
    write, which is one call of the system."""

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle, self._transport = cycle, cycle.transport
        self._head: bytes | None = None

    def write(self, data: bytes) -> None:
        """Keep the first piece, and let it leave with the second."""
        if self._head is None:
            self._head = data
        else:
            self._cycle.transport = self._transport
            self._transport.write(self._head + data)

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()


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
