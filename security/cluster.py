"""A client of the one slot of a cluster that holds our keys.

All keys of a tenant have one hash tag, hence one slot and, at each moment, one primary. Whatever is
asked goes there, also what names no key: its clock is our clock, its safety is our safety. The
library finds that primary, and finds it again after a failover or when the slot moves.
"""

from typing import Any

from redis._parsers import AsyncCommandsParser
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.crc import key_slot
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisClusterException


class _NoCommands(AsyncCommandsParser):
    """Nothing of the list that says where each command names its keys: it would be read again at
    each look at the nodes, which takes some 30 ms, and here all keys are in one slot."""

    async def initialize(self, node: Any = None) -> None:
        """Nothing is needed."""


class OneSlot(RedisCluster):
    """As a client of one server, as far as we use it: of the primary of a hash tag's slot."""

    def __init__(self, tag: str, nodes: tuple[tuple[str, int], ...], **options: Any) -> None:
        super().__init__(startup_nodes=[ClusterNode(*node) for node in nodes], **options)
        self._slot = key_slot(tag.encode())
        self.commands_parser = _NoCommands()
        self.result_callbacks = {}  # one node's answer is the answer

    @property
    def connection_pool(self) -> "OneSlot":
        """What can be disconnected."""
        return self

    async def disconnect(self, inuse_connections: bool = True) -> None:
        """End every connection; the next call looks at the nodes anew."""
        await self.aclose()

    async def aclose(self) -> None:
        """End every connection; the library keeps those of a client whose last call failed."""
        await super().aclose()
        for nodes in ("nodes_cache", "startup_nodes"):
            await self.nodes_manager.aclose(nodes)

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """As the library's; but that no node is found, or one left under the call, is an error of
        Redis like any other."""
        try:
            return await super().execute_command(*args, **options)
        except (RedisClusterException, AttributeError) as failure:
            raise RedisConnectionError("no node serves our slot") from failure

    async def _determine_slot(self, command: str, *args: Any) -> int:
        return self._slot

    async def _determine_nodes(self, command: str, *args: Any, **_: Any) -> list[ClusterNode]:
        return [self.nodes_manager.get_node_from_slot(self._slot)]
