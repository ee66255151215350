"""A TCP proxy that lets the server answer, and cuts before the client sees it.

It carries every other request and answer untouched, CORS preflights too, and keeps what it carried.
The server never notices: its answer is read to the end.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass
class Carried:
    """The head of a request that came by, and whether its answer was cut."""

    method: str
    path: str
    headers: dict[str, str]  # names in lower case
    cut: bool = False


@dataclass
class Cut:
    """One answer to be cut: of which method, and whether its head still gets through."""

    method: str
    after_head: bool


@dataclass
class CuttingProxy:
    """What a test says to it, and asks of it."""

    url: str
    server: str  # where new connections lead; a test may change it
    carried: list[Carried] = field(default_factory=list)
    ahead: list[Cut] = field(default_factory=list)

    def cut_next(self, method: str = "POST", *, after_head: bool = False) -> None:
        """Cut the next answer to this method; said twice, the next two.

        With `after_head` the client sees the head of the answer, and nothing of its body.
        """
        self.ahead.append(Cut(method, after_head))

    def of(self, method: str) -> list[Carried]:
        """Every request of this method so far."""
        return [carried for carried in self.carried if carried.method == method]

    def _see(self, head: bytes) -> tuple[Carried, Cut | None]:
        """Note a request; what was said about its answer, if anything."""
        line, *lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
        method, path, _ = line.split(" ")
        headers = {
            name.lower(): value.strip() for name, _, value in (x.partition(":") for x in lines)
        }
        cut = next((cut for cut in self.ahead if cut.method == method), None)
        if cut:
            self.ahead.remove(cut)
        self.carried.append(Carried(method, path, headers, cut is not None))
        return self.carried[-1], cut


@dataclass
class Connection:
    """A client's connection and its counterpart at the server."""

    proxy: CuttingProxy
    client: asyncio.StreamReader
    to_client: asyncio.StreamWriter
    server: asyncio.StreamReader
    to_server: asyncio.StreamWriter
    cut: Cut | None = None

    async def carry_requests(self) -> None:
        """Take requests to the server one by one, until the client goes or is cut off."""
        while True:
            head = await self.client.readuntil(b"\r\n\r\n")
            carried, self.cut = self.proxy._see(head)
            size = int(carried.headers.get("content-length", "0"))
            self.to_server.write(head + await self.client.readexactly(size))

    async def carry_answers(self) -> None:
        """Take bytes to the client; those of an answer to be cut get no further than here."""
        while data := await self.server.read(65536):
            if self.cut is None:
                self.to_client.write(data)
                await self.to_client.drain()
                continue
            if self.cut.after_head:
                await self._show_head(data)
            reset(self.to_client)
            while await self.server.read(65536):
                pass

    async def _show_head(self, data: bytes) -> None:
        while b"\r\n\r\n" not in data:
            data += await self.server.read(65536)
        self.to_client.write(data.partition(b"\r\n\r\n")[0] + b"\r\n\r\n")
        await self.to_client.drain()

    async def carry(self) -> None:
        """Both ways, until either side goes; an answer that was cut is read to its end."""
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            ways = [
                asyncio.create_task(self.carry_requests()),
                asyncio.create_task(self.carry_answers()),
            ]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                if self.cut:
                    await ways[1]
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)


def reset(writer: asyncio.StreamWriter) -> None:
    """Reset a connection: its other end gets an error instead of an end."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    writer.transport.abort()


@asynccontextmanager
async def cutting_proxy(url: str) -> AsyncIterator[CuttingProxy]:
    """A proxy in this loop before the server at `url`, on a free port."""
    writers: set[asyncio.StreamWriter] = set()
    tasks: set[asyncio.Task[None] | None] = set()

    async def accept(client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())
        writers.add(to_client)
        target = urlsplit(proxy.server)
        try:
            server, to_server = await asyncio.open_connection(target.hostname, target.port)
        except ConnectionError:
            return reset(to_client)  # nobody listens there
        writers.add(to_server)
        await Connection(proxy, client, to_client, server, to_server).carry()
        to_client.close()
        to_server.close()
        writers.difference_update((to_client, to_server))

    listener = await asyncio.start_server(accept, "127.0.0.1", 0)
    proxy = CuttingProxy(f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}", url)
    try:
        yield proxy
    finally:
        listener.close()
        for writer in writers:
            writer.transport.abort()
        await asyncio.gather(*filter(None, tasks))
        await listener.wait_closed()
