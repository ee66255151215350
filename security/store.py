"""The Redis client, with every default of the library said again, and whether Redis can be trusted.

By itself the library repeats a command ten times, writes included, and notices a hung server after
a minute. Here nothing is repeated, waits are bounded, and connections are bounded too.
"""

from collections.abc import Callable
from dataclasses import dataclass

import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    NoPermissionError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

MEMORY = "memory://"
CONNECTIONS = 50
_SPARE = 4  # for questions about the store itself
WAIT_SECONDS = 0.1
_REFUSED = "it refuses the user or the password in REDIS_URL"


def connect(url: str, *, timeout: float, connect_timeout: float) -> "redis.Redis":
    """A client of the server at `url`; times in seconds. `memory://` is fakeredis, here."""
    if url == MEMORY:
        from fakeredis import FakeAsyncRedis

        return FakeAsyncRedis()
    pool = redis.BlockingConnectionPool.from_url(
        url,
        max_connections=CONNECTIONS + _SPARE,
        timeout=WAIT_SECONDS,
        socket_timeout=timeout,
        socket_connect_timeout=connect_timeout,
        retry=Retry(NoBackoff(), 0),
        retry_on_error=[],
    )
    return redis.Redis.from_pool(pool)


async def why_not(store: "redis.Redis") -> str:
    """Why this store lets nobody in, as far as a plain question tells."""
    try:
        await store.ping()
    except (AuthenticationError, NoPermissionError):
        return _REFUSED
    except (RedisConnectionError, RedisTimeoutError, OSError) as failure:
        # A new connection that is not let in fails as a broken one; its cause tells why.
        refused = isinstance(failure.__cause__, AuthenticationError)
        return _REFUSED if refused else "it does not answer in time"
    except RedisError:
        return "it refuses to serve now"
    return "it answers, but does not take what an admission writes"


async def why_no_write(store: "redis.Redis", key: str) -> str:
    """`ok` where a write to this key is taken, else why it is not; the key lives for a second."""
    try:
        await store.set(key, 1, px=1000)
    except (RedisError, OSError):
        return await why_not(store)
    return "ok"


async def unsafe(store: "redis.Redis", *, must_persist: bool) -> list[str]:
    """Why this store might forget what it acknowledged, each with how to mend it.

    A store that does not tell (a hosted one may hide INFO) is believed. Raises `RedisError` or
    `OSError` where it cannot be asked now.
    """
    try:
        info = await store.info()
    except ResponseError as refusal:
        if str(refusal).startswith("BUSY"):  # a script runs; it will tell when that is over
            raise
        return []
    reasons = []
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        reasons.append(f"it may evict keys ({policy}): {_in_conf('maxmemory-policy noeviction')}")
    if must_persist and info.get("aof_enabled", 1) != 1:
        reasons.append(f"it does not persist: {_in_conf('appendonly yes')}")
    if must_persist and info.get("aof_last_write_status", "ok") != "ok":
        reasons.append("it cannot write to its disk (aof_last_write_status): make room there")
    if info.get("role", "master") != "master":
        reasons.append("it is a replica: name its primary, or promote it with REPLICAOF NO ONE")
    return reasons


def _in_conf(line: str) -> str:
    return f"run redis-cli CONFIG SET {line}, and put the line `{line}` into redis.conf"


@dataclass(frozen=True, slots=True)
class Facts:
    """What a store says of itself, `ahead` in seconds of our clock, and why it might forget."""

    version: str | None
    ahead: float
    doubts: list[str]


async def facts(store: "redis.Redis", *, clock: Callable[[], float]) -> Facts | None:
    """What an operator wants to know of a store; None where it cannot be asked now."""
    try:
        before = clock()
        seconds, microseconds = await store.time()
        ahead = seconds + microseconds / 1e6 - (before + clock()) / 2
        return Facts(await _version(store), ahead, await unsafe(store, must_persist=True))
    except (RedisError, OSError):
        return None


async def _version(store: "redis.Redis") -> str | None:
    try:
        info = await store.info("server")
    except ResponseError:
        return None
    name = info.get("server_name", "redis")
    version = info.get(f"{name}_version") or info.get("redis_version")
    return f"{name} {version}" if version else None
