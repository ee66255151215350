"""The Redis client, with every default of the library said again, and whether Redis can be trusted.

By itself the library repeats a command ten times, writes included, and notices a hung server after
a minute. Here nothing is repeated, waits are bounded, and connections are bounded too.
"""

import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError
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

    A store that does not tell (a hosted one may hide INFO) is believed.
    """
    try:
        info = await store.info()
    except RedisError:
        return []
    reasons = []
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        reasons.append(f"it may evict keys ({policy}): set maxmemory-policy noeviction")
    if must_persist and info.get("aof_enabled", 1) != 1:
        reasons.append("it does not persist: set appendonly yes")
    if info.get("role", "master") != "master":
        reasons.append("it is a replica: connect to the primary")
    return reasons
