"""A client of the primary that Sentinels name: they are asked at every new connection.

The library's own, but Sentinels are not asked ten times over either, and one that does not answer
costs no more than a command may take: the next one is asked within the same deadline.
"""

import asyncio
from typing import Any, cast

import redis.asyncio as redis
from redis.asyncio.connection import AbstractConnection, Connection
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool

from security.store_url import StoreUrl


class _Sentinels(Sentinel):
    """Sentinels that are asked by one connection at a time.

    The library puts the one that answered to the head of its list. Where several do so at once it
    may put one there twice, and the one that stood there is never asked again.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)  # type: ignore[no-untyped-call]
        self._asking = asyncio.Lock()

    async def discover_master(self, service_name: str) -> tuple[str, int]:
        """Host and port of the primary."""
        async with self._asking:
            host, port = await super().discover_master(service_name)
        return host, port


class _Pool(SentinelConnectionPool, redis.BlockingConnectionPool):
    """Connections to the primary, as bounded as those to any server, and Sentinels' own."""

    async def release(self, connection: AbstractConnection) -> None:
        """Take one back; it is closed if it leads to the primary of before, which may still be up
        and take writes: the library closes those alone that nobody uses when it learns of another.
        """
        leads_to = cast(Connection, connection)  # this pool makes no other
        if (leads_to.host, leads_to.port) != self.master_address:
            await connection.disconnect(nowait=True)
        await super().release(connection)

    async def aclose(self) -> None:
        """Close them all."""
        await super().aclose()
        await self.sentinel_manager.aclose()


def primary_of(url: StoreUrl, *, wait: float, **options: Any) -> "redis.Redis":
    """A client of the primary. `wait` in seconds for a connection to become free."""
    own = {"username": url.sentinel_username, "password": url.sentinel_password}
    shared = {name: said for name, said in options.items() if name.startswith(("ssl", "retry"))}
    timeout = options["socket_timeout"]
    sentinel = _Sentinels(
        url.hosts,
        sentinel_kwargs={
            **shared,
            **own,
            "socket_timeout": timeout,
            "socket_connect_timeout": timeout,
        },
    )
    pool = _Pool(url.service, sentinel, timeout=wait, **options)  # type: ignore[no-untyped-call]
    return redis.Redis.from_pool(pool)
