"""Servers of uvicorn with a given protocol, and the app that they serve."""

import contextlib
import socket
from collections.abc import Iterator

import pytest
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tests.protocol.limits import Serve
from tests.protocol_stage import Stage, running


@pytest.fixture
def stage() -> Stage:
    """The app of every server in a test."""
    return Stage()


@pytest.fixture
def serve(request: pytest.FixtureRequest, stage: Stage) -> Iterator[Serve]:
    """Starts servers with a given protocol and keep-alive time, and stops them after the test."""
    loop = getattr(request, "param", "uvloop")
    with contextlib.ExitStack() as stack:

        def start(protocol: type[HttpToolsProtocol], keep_alive: float = 30) -> int:
            sock = socket.create_server(("127.0.0.1", 0))
            stack.enter_context(running(stage, protocol, sock, loop, keep_alive))
            return int(sock.getsockname()[1])

        yield start
