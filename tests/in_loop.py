"""Uvicorn in the loop of a test; it stops as soon as it is asked."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn

from protocol import KeyturnProtocol

LOOK = 0.01  # seconds between two looks whether it should exit
LOOKS = 20  # whether all have left who have just hung up; a millisecond between two


class SwiftServer(uvicorn.Server):
    """Uvicorn looks ten times a second and then always waits 0.1 s: each test would wait too.

    Where a connection is open or an answer is under way it ends as uvicorn does.
    """

    async def main_loop(self) -> None:
        counter = 0
        while not await self.on_tick(counter):
            counter += 1
            await asyncio.sleep(LOOK)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if not await self._deserted():
            await super().shutdown(sockets)
            return
        for server in self.servers:
            server.close()
        if not self.force_exit:
            await self.lifespan.shutdown()

    async def _deserted(self) -> bool:
        for _ in range(LOOKS):
            if not (self.server_state.connections or self.server_state.tasks):
                return True
            await asyncio.sleep(0.001)
        return False


class Silent(KeyturnProtocol):
    """Without an access log, as it is run; the handlers of pytest would turn it on."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.access_log = False


@asynccontextmanager
async def running(server: uvicorn.Server) -> AsyncIterator[str]:
    """A server from its start to its end; yields its URL."""
    task = asyncio.create_task(server.serve())
    try:
        async with asyncio.timeout(10):
            while not server.started:
                assert not task.done(), "the server did not start"
                await asyncio.sleep(0.001)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


@asynccontextmanager
async def serving_app(app: Any) -> AsyncIterator[str]:
    """Any ASGI app, for controls and for what a naive one does; yields its URL."""
    config = uvicorn.Config(
        app, host="127.0.0.1", port=0, access_log=False, log_config=None, lifespan="off"
    )
    async with running(SwiftServer(config)) as url:
        yield url
