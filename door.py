"""The door of a server, closed so that nobody is turned away who has come through it.

The law: whom the kernel has let in is answered. To close a socket that listens resets all who wait
in it, and a proxy that has sent its chat by then must not send it to another server.
"""

import asyncio
import socket
from collections.abc import Iterator
from typing import Any

import uvicorn
from uvicorn.supervisors.multiprocess import Process


class Server(uvicorn.Server):
    """Takes in whoever waits at its door before it closes it."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        waiting = [each for door in sockets or [] for each in _waiting_at(door)]
        for server in self.servers:  # at once: who comes from now on is refused, and may go on
            server.close()
        for each in waiting:
            await self._let_in(each)
        await super().shutdown(sockets)

    async def _let_in(self, visitor: socket.socket) -> None:
        """As the loop does it, which has stopped to look."""
        loop = asyncio.get_running_loop()
        protocol: Any = self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
            _loop=loop,
        )
        await loop.connect_accepted_socket(lambda: protocol, visitor)
        protocol.shutdown()


class Worker(Process):
    """A worker process with such a door."""

    @property
    def server(self) -> uvicorn.Server:
        if self._server is None:
            self._server = Server(self.config)
        return self._server


def _waiting_at(door: socket.socket) -> Iterator[socket.socket]:
    """Everybody who waits there now."""
    door.setblocking(False)
    try:
        while True:
            yield door.accept()[0]
    except OSError:  # nobody, or no room for one more
        return
