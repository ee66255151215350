"""What the tests of the protocol send, with which limits, and what becomes of it."""

import asyncio
import logging
from collections.abc import Callable

import pytest
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from protocol import KeyturnProtocol
from tests.protocol_stage import SOON, fate

STOCK = HttpToolsProtocol
HALF = b"GET /echo HTTP/1.1\r\nHost: x\r\n"  # all but the empty line
GET = HALF + b"\r\n"
HOLD = b"GET /hold HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /%s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
CHUNKED = b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n"

Serve = Callable[..., int]
Fate = tuple[bool, bytes]

each_loop = pytest.mark.parametrize("serve", ["asyncio", "uvloop"], indirect=True)


class Hasty(KeyturnProtocol):
    """Short times."""

    HEAD_SECONDS = 0.3
    LINGER_SECONDS = 0.3
    DEAF_SECONDS = 0.5


class Roomy(KeyturnProtocol):
    """What a client does not take may lie here."""

    WRITE_BUFFER = 1 << 20


class Narrow(KeyturnProtocol):
    """Small sizes."""

    HEAD_LIMIT = 2048
    PIPELINE_LIMIT = 4
    LINGER_SECONDS = 30.0  # so that a test sees whether anything waits for it


def head_of(size: int) -> bytes:
    """A whole request head of so many bytes."""
    start = HALF + b"X: "
    return start + b"a" * (size - len(start) - 4) + b"\r\n\r\n"


async def both(serve: Serve, ours: type[KeyturnProtocol], *pieces: bytes) -> tuple[Fate, Fate]:
    """The fate of the same bytes with our protocol and with uvicorn's own."""
    return await asyncio.gather(
        fate(serve(ours), *pieces), fate(serve(STOCK), *pieces, within=SOON)
    )


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged that an operator should read."""
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
