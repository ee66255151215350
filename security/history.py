"""A day of history in Redis: for each hour one hash of counts, and who was refused most.

The law: no key and no field is named by a visitor, and each hour is forgotten after a day and two
hours. Many workers add to the same counts.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

import redis.asyncio as redis

from security.calls import Calls
from security.ledger import new_rid

KEPT_HOURS: Final = 26
_FRESH: Final = 15  # seconds, as in history.lua
_MS_OF_HOUR: Final = 3_600_000


@dataclass(frozen=True, slots=True)
class Batch:
    """What a worker counted in minutes of one hour; named, so that it is added once."""

    name: str
    hour: int
    counts: Mapping[str, int]
    sources: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Load:
    """Streams in flight, how many all workers take, and how many workers told of theirs lately."""

    streams: int
    most: int
    workers: int


class History:
    """The counts of the last day, under one tenant's keys."""

    def __init__(self, store: "redis.Redis", calls: Calls) -> None:
        self._store = store
        self._calls = calls
        self._add = self._calls.script("history")
        self._hour = self._calls.script("hour")

    async def add(self, batch: Batch, *, worker: str, streams: int, most: int, minute: int) -> None:
        """Add these counts, and say what this worker carries at this minute since 1970.

        Raises `Rejection` where Redis does not answer; then the same batch may be told again.
        """
        hour = batch.hour
        keys = ["control", "workers", f"history:{hour}", f"history:{hour}:refused"]
        pairs = [word for pair in batch.counts.items() for word in pair]
        pairs += [word for pair in batch.sources.items() for word in pair]
        current = f"{minute % 60:02d}" if minute // 60 == hour else ""
        argv: list[str | int] = [batch.name, worker, streams, most, KEPT_HOURS * _MS_OF_HOUR]
        argv += [current, minute // 1440, len(batch.counts), *pairs]
        await self._calls.call(self._add, batch.name, keys, argv)

    async def counts(self, hour: int) -> dict[str, int]:
        """What was counted in an hour since 1970: `<minute>:<measure>` and its number."""
        rid = new_rid()
        reply = await self._calls.call(self._hour, rid, ["control", f"history:{hour}"], (rid,))
        words = [cast(bytes, word).decode() for word in reply[1:]]
        return dict(zip(words[::2], map(int, words[1::2]), strict=True))

    async def spent(self, minutes: Iterable[int]) -> dict[int, int]:
        """What had been spent of the day at these minutes since 1970, where that is known."""
        asked = list(minutes)
        pipe = self._store.pipeline(transaction=False)
        for minute in asked:
            pipe.hget(f"{self._calls.prefix}history:{minute // 60}", f"{minute % 60:02d}:spent")
        found = await pipe.execute()
        known = zip(asked, found, strict=True)
        return {minute: int(amount) for minute, amount in known if amount is not None}

    async def refused(self, hour: int) -> dict[str, int]:
        """Who was refused in an hour, as sources are named, and how often; the most frequent."""
        key = f"{self._calls.prefix}history:{hour}:refused"
        found: Any = await self._store.zrange(key, 0, -1, withscores=True)
        return {name.decode(): int(count) for name, count in found}

    async def load(self) -> Load:
        """What all workers carry now."""
        now, _ = await self._store.time()
        told = await self._store.hgetall(f"{self._calls.prefix}workers")
        lines = [line.split() for line in cast(dict[bytes, bytes], told).values()]
        fresh = [line for line in lines if now - int(line[0]) <= _FRESH]
        streams, most = (sum(int(line[at]) for line in fresh) for at in (1, 2))
        return Load(streams, most, len(fresh))
