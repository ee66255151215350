"""Today's money, read from Redis for the operator.

The law: it is read as it stands, by Redis' own clock, and nothing is changed. Keys are looked for
in bounded batches, so that a large store serves its visitors meanwhile.
"""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from heapq import nsmallest
from typing import Final, cast

import redis.asyncio as redis
from redis.exceptions import NoPermissionError, RedisError

from security.day import Day, Spender
from security.scripts import prefix_of
from security.store import connect, why_not

_DAY: Final = 86_400
_BATCH: Final = 250  # keys: a worker that reads them has streams to relay meanwhile
_WHOLE: Final = re.compile(rb"-?[0-9]{1,15}")


class OutOfSight(Exception):
    """The money cannot be seen from here; the text tells the operator why."""


@asynccontextmanager
async def reading(url: str, *, tenant: str, patience: float) -> AsyncIterator["redis.Redis"]:
    """A client to read by, which waits for seconds; raises `OutOfSight` where that was in vain."""
    store = connect(url, timeout=patience, connect_timeout=patience, tenant=tenant)
    try:
        async with in_sight(store):
            yield store
    finally:
        await store.aclose()


@asynccontextmanager
async def in_sight(store: "redis.Redis") -> AsyncIterator[None]:
    """A block that reads from this store; raises `OutOfSight` where that fails."""
    try:
        yield
    except NoPermissionError:
        raise OutOfSight("Redis lets this user read too little: +@read +time +scan") from None
    except (RedisError, OSError, TimeoutError):
        raise OutOfSight(f"Redis cannot be read: {await why_not(store)}") from None


async def read_day(store: "redis.Redis", *, tenant: str, cap: int | None) -> Day:
    """The money of today; `cap` in µUSD is the setting's. Raises `OutOfSight`, `RedisError`."""
    base = prefix_of(tenant)
    seconds, microseconds = await store.time()
    number, now_ms = seconds // _DAY, seconds * 1000 + microseconds // 1000
    pipe = store.pipeline(transaction=False)
    pipe.hmget(f"{base}spend:{number}", "spent", "held", "over", "past")
    pipe.hmget(f"{base}control", "paused", "cap")
    pipe.zcount(f"{base}holds", f"({now_ms}", "+inf")
    pipe.zcount(f"{base}holds", "-inf", now_ms)
    money, (paused, ruled), holds, lapsed = await pipe.execute()
    spent, held, over, past = (int(amount or 0) for amount in money)
    return Day(
        number=number,
        date=datetime.fromtimestamp(seconds, UTC).date().isoformat(),
        resets_in=_DAY - seconds % _DAY,
        spent=spent,
        held=held,
        cap=cap if ruled is None else _ruled(ruled, base),
        cap_set_in="DAILY_BUDGET_USD" if ruled is None else "control",
        over=over,
        past=past,
        paused=paused not in (None, b"0"),
        holds=holds,
        lapsed=lapsed,
    )


async def read_spenders(
    store: "redis.Redis", *, tenant: str, day: int, most: int
) -> tuple[list[Spender], int]:
    """Those with the most spent and held of a day, at most so many, and how many visitors it had.

    An IPv6 /48 may be among the first, and is no visitor.
    """
    start = f"{prefix_of(tenant)}spend:{day}:".encode()
    seen: set[bytes] = set()
    top: list[Spender] = []
    visitors = cursor = 0
    while True:
        cursor, keys = await store.scan(cursor, match=start + b"*", count=_BATCH)
        fresh = sorted(set(cast(list[bytes], keys)) - seen)  # a growing store names some twice
        seen.update(fresh)
        found = await _read(store, fresh, len(start))
        visitors += sum(not spender.wide for spender in found)
        top = nsmallest(most, top + found, key=lambda each: (-each.spent - each.held, each.name))
        if cursor == 0:
            return top, visitors


async def _read(store: "redis.Redis", keys: list[bytes], start: int) -> list[Spender]:
    pipe = store.pipeline(transaction=False)
    for key in keys:
        pipe.hmget(cast(str, key), "spent", "held", "wide")
    amounts = await pipe.execute() if keys else []
    return [
        Spender(key[start:].decode(), int(spent or 0), int(held or 0), wide is not None)
        for key, (spent, held, wide) in zip(keys, amounts, strict=True)
    ]


def _ruled(said: bytes, base: str) -> int | None:
    """The cap that the operator set while the server runs; below 0 it is none."""
    if not _WHOLE.fullmatch(said):
        raise OutOfSight(
            "the cap set in Redis is no number of µUSD, and nobody gets in: "
            f"HSET '{base}control' cap 5000000 makes it 5.00 USD, HDEL takes it away"
        )
    return int(said) if int(said) >= 0 else None
