"""Calling a script in Redis: one deadline over waiting, calling and calling once again.

When Redis cannot answer in time the answer is `StoreUnavailable`: nobody gets in. No call is
repeated by the library; ours is repeated once, with the same `rid`, by which a script recognises
it, and which every reply begins with.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, cast

import redis.asyncio as redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from security.breaker import Breaker
from security.errors import Chain, Rejection, StoreUnavailable
from security.scripts import Reply
from security.store import CONNECTIONS
from security.wire import Script as OwnScript
from security.words import Words

_DAY_SECONDS: Final = 86400
_LUA: Final = Path(__file__).parent / "lua"
_NO_NAMES: Final[Mapping[str, str]] = {}

# The last is the library's word for a connection that ended under a call, at another's hands.
_SILENCE: Final = (RedisConnectionError, RedisTimeoutError, OSError, TimeoutError, AttributeError)

Told = Callable[[str, str | None, float], None]
Script = Callable[[Sequence[str], Sequence[str | int]], Awaitable[Reply | bytes]]


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds for one command, and for the whole of waiting, calling and calling again."""

    command: float
    whole: float


def nobody(script: str, failure: str | None, seconds: float) -> None:
    """Nobody is told of calls."""


class Calls:
    """The scripts of one store, under one tenant's prefix.

    `told` hears of each call: which script, how it failed if it did, and how many seconds it took.
    At most `places` calls are under way at once. Through Sentinel and in a cluster each has its own
    connection: all who call one store must not have more together than it has connections.
    """

    def __init__(
        self,
        store: "redis.Redis",
        *,
        prefix: str,
        deadlines: Deadlines,
        breaker: Breaker,
        told: Told = nobody,
        places: int = CONNECTIONS,
    ) -> None:
        self._store = store
        self.prefix = prefix
        self._deadlines = deadlines
        self._breaker = breaker
        self._places = asyncio.Semaphore(places)
        self._scripts: list[str] = []
        self._names: dict[Script, str] = {}
        self._told = told

    def script(self, name: str) -> Script:
        """The script of that name, with what all of them know of money in front of it."""
        text = (_LUA / "money.lua").read_text() + (_LUA / f"{name}.lua").read_text()
        return self.script_of(name, text)

    def script_of(self, name: str, text: str) -> Script:
        """A script of this text, by this name in what is told of its calls."""
        script = cast(Script, self._store.register_script(text))
        self._scripts.append(text)
        self._names[script] = name
        return script

    async def load(self, connections: int) -> int:
        """Open connections and load the scripts, so that the first visitors find both.

        Returns the Unix day, by the store's clock.
        """
        async with asyncio.timeout(self._deadlines.whole * 5):
            pings = (self._store.ping() for _ in range(connections))
            for said in await asyncio.gather(*pings, return_exceptions=True):
                if isinstance(said, BaseException):  # no other ping is left running
                    raise said
            for script in self._scripts:
                await self._store.script_load(script)
            seconds, _ = await self._store.time()
            return int(seconds) // _DAY_SECONDS

    async def call(
        self, script: Script, rid: str, keys: Sequence[str], argv: Sequence[str | int]
    ) -> Reply:
        """What the script replies; raises `StoreUnavailable` or `Rejection` overloaded."""
        return await self.say(script, rid, Words([self.prefix + key for key in keys], argv))

    async def say(
        self, script: Script, rid: str, words: Words, names: Mapping[str, str] = _NO_NAMES
    ) -> Reply:
        """The same for words with these names in them; the prefix is in their keys already."""
        name, began = self._names[script], time.monotonic()
        if not self._breaker.try_enter():
            self._told(name, "not_asked", 0)
            raise StoreUnavailable()
        try:
            reply = await self._say_in_turn(script, words, names, began + self._deadlines.whole)
        except asyncio.CancelledError:
            self._breaker.withdraw()  # else nobody would ask for a while, if this was the probe
            raise
        except (RedisError, *_SILENCE) as failure:
            self._breaker.failed()
            self._told(name, "failed", time.monotonic() - began)
            if isinstance(failure, ReadOnlyError):
                await self._store.connection_pool.disconnect(inuse_connections=False)
            raise StoreUnavailable(chain=_chain_after(failure)) from None
        if not reply or reply[0] != rid.encode():
            self._breaker.failed()
            self._told(name, "confused", time.monotonic() - began)
            await self._store.connection_pool.disconnect()
            raise StoreUnavailable(chain="unknown")
        self._breaker.succeeded()
        self._told(name, None, time.monotonic() - began)
        return reply

    async def _say_in_turn(
        self, script: Script, words: Words, names: Mapping[str, str], end: float
    ) -> Reply:
        """Wait for a place, and call: a crowd of visitors is no broken store."""
        if self._places.locked():
            await self._wait_for_place(end - self._deadlines.command)
        else:
            await self._places.acquire()
        say = script.ask if isinstance(script, OwnScript) else partial(_by_library, script)
        try:
            reply = await say(words, names, end)
        except _SILENCE:
            if end - time.monotonic() < self._deadlines.command:
                raise
            reply = await say(words, names, end)
        finally:
            self._places.release()
        # In lines, as the script wrote it, where nobody has read them yet.
        return cast(Reply, reply.split(b"\n")) if isinstance(reply, bytes) else reply

    async def _wait_for_place(self, end: float) -> None:
        try:
            async with asyncio.timeout(end - time.monotonic()):
                await self._places.acquire()
        except TimeoutError:
            self._breaker.withdraw()
            raise Rejection("overloaded", retry_after=1) from None


async def _by_library(
    script: Script, words: Words, names: Mapping[str, str], end: float
) -> Reply | bytes:
    async with asyncio.timeout(end - time.monotonic()):
        return await script(words.keys(names), words.argv(names))


def _chain_after(failure: BaseException) -> Chain:
    """A reply of Redis says that nothing was written; silence says nothing."""
    return "unknown" if isinstance(failure, _SILENCE) else "kept"
