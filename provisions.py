"""What a server stands on: embedded parts for what the operator has not brought, and a safe store.

One process starts the embedded parts and hands them to its workers, by the environment.
"""

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import redis.asyncio as redis
from pydantic import SecretStr
from redis.exceptions import RedisError

from embedded import Parts, StoreMissing, embedded_parts
from security.store import MEMORY, connect, unsafe
from settings import Settings, SettingsError

log = logging.getLogger("keyturn")

HOME: Final = Path(".keyturn")
HANDED_OVER: Final = "KEYTURN_EMBEDDED"
SHARED: Final = "KEYTURN_SHARED"  # where workers tell each other what they counted
NOTHING: Final = Parts(None, None, None, None)


@contextmanager
def embedded_for(settings: Settings) -> Iterator[Parts]:
    """What the operator has not brought, started here unless a parent process handed it over."""
    if given := handed_over():
        yield given
        return
    demo = not settings.openai_api_key
    store = settings.redis_url is None
    with embedded_parts(
        HOME,
        store=store,
        upstream=demo,
        secret=not settings.api_secret_key,
        persistent=store and not demo,
    ) as parts:
        if parts.redis_url == MEMORY:
            _accept_memory(settings.workers)
        yield parts


def _accept_memory(workers: int) -> None:
    if workers > 1:
        raise StoreMissing("WORKERS: more than one need a store to share: set REDIS_URL")
    log.warning("no redis-server was found: fakeredis stands in for it, to try things out only")


def hand_over(parts: Parts) -> None:
    """Put the embedded parts where the worker processes of this one will find them."""
    secret = parts.secret.get_secret_value() if parts.secret else None
    os.environ[HANDED_OVER] = json.dumps(
        [parts.redis_url, parts.upstream_url, secret, parts.store_name]
    )


def handed_over() -> Parts | None:
    """The embedded parts that a parent process started, if one did."""
    given = os.environ.get(HANDED_OVER)
    if not given:
        return None
    redis_url, upstream_url, secret, store_name = json.loads(given)
    return Parts(redis_url, upstream_url, SecretStr(secret) if secret else None, store_name)


def connected(settings: Settings, parts: Parts) -> "redis.Redis":
    """A client of the store that the operator brought, else of the embedded one."""
    given = settings.redis_url.get_secret_value() if settings.redis_url else MEMORY
    return connect(
        parts.redis_url or given,
        timeout=settings.redis_timeout_ms / 1000,
        connect_timeout=settings.redis_connect_timeout_ms / 1000,
        tenant=settings.tenant,
    )


def is_fenced(settings: Settings, parts: Parts) -> bool:
    """Whether an earlier life of the store is not believed; one in this process has only one."""
    return settings.failover_fence and parts.redis_url != MEMORY


async def require_safe_store(settings: Settings, parts: Parts) -> None:
    """Raise `SettingsError` when the store answers and might forget; silence is no reason.

    Outside production one that does not persist is only warned of, where money is at stake.
    """
    store, reasons, doubts = connected(settings, parts), list[str](), list[str]()
    fenced, at_stake = is_fenced(settings, parts), bool(settings.openai_api_key)
    try:
        with suppress(RedisError, OSError):
            reasons = await unsafe(store, must_persist=settings.production, fenced=fenced)
            doubts = await unsafe(store, must_persist=at_stake, fenced=False)
    finally:
        await store.aclose()
    if reasons:
        raise SettingsError([f"REDIS_URL: {reason}" for reason in reasons])
    for doubt in doubts:
        log.warning("the store may forget today's money: %s", doubt)
