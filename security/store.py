"""The Redis client, with every default of the library said again, and whether Redis can be trusted.

By itself the library repeats a command ten times, writes included, and notices a hung server after
a minute. Here nothing is repeated, waits are bounded, and connections are bounded too.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import redis.asyncio as redis
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import MasterNotFoundError
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    NoPermissionError,
    RedisClusterException,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from security import tls
from security.cluster import OneSlot
from security.sentinel import primary_of
from security.store_url import SENTINEL, SERVER, read_store_url
from security.wire import InLines, OwnScripts

MEMORY = "memory://"
CONNECTIONS = 50
_SPARE = 4  # for questions about the store itself, and for the operator's scripts
OPERATORS_OWN = 1  # of these for what the operator decides, and one more for the history
WAIT_SECONDS = 0.1
_REFUSED = "it refuses the user or the password in REDIS_URL"
_SILENT = (
    "it does not tell in INFO whether it failed over: let its user run INFO, or set "
    "FAILOVER_FENCE=off, and a failover may let a spent token in again"
)
_NOT_THAT = "it is not what the scheme of REDIS_URL says"


def connect(
    url: str, *, timeout: float, connect_timeout: float, tenant: str = "main"
) -> "redis.Redis":
    """A client of the server that holds this tenant's keys; times in seconds.

    `memory://` is fakeredis, here.
    """
    if url == MEMORY:
        from fakeredis import FakeAsyncRedis

        class InThisProcess(FakeAsyncRedis):
            """fakeredis, with scripts like a real one's."""

            def register_script(self, script: Any) -> Any:
                """The script, to be called by its keys and arguments; it replies in lines."""
                return InLines(super().register_script(script))

        return InThisProcess()
    said = read_store_url(url)
    options: dict[str, Any] = {
        "max_connections": CONNECTIONS + _SPARE,
        "socket_timeout": timeout,
        "socket_connect_timeout": connect_timeout,
        "retry": Retry(NoBackoff(), 0),
        "retry_on_error": [],
        "driver_info": None,  # no CLIENT SETINFO, which a user with few rights may not call
        **parse_url(said.plain),
    }
    if said.kind == SERVER:
        pool = redis.BlockingConnectionPool(timeout=WAIT_SECONDS, **options)
        return OwnScripts.from_pool(pool)
    options["ssl"] = options.pop("connection_class", None) is redis.SSLConnection
    del options["host"]  # it is found when it is needed
    if said.kind == SENTINEL:
        return primary_of(said, wait=WAIT_SECONDS, **options)
    return cast("redis.Redis", OneSlot(tenant, said.hosts, **options))


async def why_not(store: "redis.Redis") -> str:
    """Why this store lets nobody in, as far as a plain question tells."""
    try:
        await store.ping()
    except (AuthenticationError, NoPermissionError):
        return _REFUSED
    except (RedisConnectionError, RedisTimeoutError, OSError) as failure:
        return _why_not_there(failure)
    except RedisError as refusal:
        return _NOT_THAT if "SENTINEL" in str(refusal) else "it refuses to serve now"
    return "it answers, but does not take what an admission writes"


def _why_not_there(failure: BaseException | None) -> str:
    """A new connection that is not let in fails as a broken one; what lies beneath tells why."""
    while failure:
        if isinstance(failure, AuthenticationError):
            return _REFUSED
        if of_tls := tls.why(failure):
            return of_tls
        if isinstance(failure, MasterNotFoundError):
            return "its Sentinels do not answer, or know no primary of that name that is up"
        if isinstance(failure, RedisClusterException) and "not enabled" in str(failure):
            return _NOT_THAT
        failure = failure.__cause__ or failure.__context__
    return "it does not answer in time"


async def why_no_write(store: "redis.Redis", key: str) -> str:
    """`ok` where a write to this key is taken, else why it is not; the key lives for a second."""
    try:
        await store.set(key, 1, px=1000)
    except (RedisError, OSError):
        return await why_not(store)
    return "ok"


async def unsafe(store: "redis.Redis", *, must_persist: bool, fenced: bool) -> list[str]:
    """Why this store might forget what it acknowledged, each with how to mend it.

    A store that does not tell (a hosted one may hide INFO) is believed, unless it is `fenced`: then
    scripts must learn from INFO whether it failed over. Raises `RedisError` or `OSError` where it
    cannot be asked now.
    """
    try:
        info = await store.info()
    except ResponseError as refusal:
        if str(refusal).startswith("BUSY"):  # a script runs; it will tell when that is over
            raise
        return [_SILENT] if fenced else []
    reasons = [_SILENT] if fenced and "master_replid" not in info else []
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


async def facts(store: "redis.Redis", *, fenced: bool, clock: Callable[[], float]) -> Facts | None:
    """What an operator wants to know of a store; None where it cannot be asked now."""
    try:
        before = clock()
        seconds, microseconds = await store.time()
        ahead = seconds + microseconds / 1e6 - (before + clock()) / 2
        doubts = await unsafe(store, must_persist=True, fenced=fenced)
        return Facts(await _version(store), ahead, doubts)
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
