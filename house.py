"""The house: every part, built from the settings, opened in order and closed in reverse."""

import gc
import json
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
    nullcontext,
    suppress,
)
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import aiohttp
import redis.asyncio as redis
from pydantic import SecretStr
from redis.exceptions import RedisError

from completions.operator_keys import OperatorKeys
from completions.own_key import OwnKeyUpstream
from completions.prices import Price
from completions.request import Policy
from completions.turns import Turns
from completions.upstream import Destination, Upstream, new_session
from console import Console, console_of
from edge import now_ms
from embedded import Parts, StoreMissing, embedded_parts
from metrics import Metrics, Samples, state_of
from patience import DEFAULT, Patience
from recording import recording
from rotation import Rotation, identity_of, rotating, token_keys
from security.breaker import Breaker
from security.calls import Deadlines, nobody
from security.capacity import Capacity
from security.gate import Gate
from security.keyed_hash import KeyedHash
from security.ledger import Ledger
from security.one_time_token import TokenSigner
from security.scripts import Limits
from security.store import MEMORY, connect, unsafe
from security.trust import looking_at
from setting_types import start_burst
from settings import Settings, SettingsError, read_settings
from shared_metrics import SharedMetrics
from signals import draining_on_signal, ending_with_parent
from turn_log import write_turn
from turn_record import Observer
from turn_trace import trace_turn

log = logging.getLogger("keyturn")

HOME: Final = Path(".keyturn")
HANDED_OVER: Final = "KEYTURN_EMBEDDED"
SHARED: Final = "KEYTURN_SHARED"  # where workers tell each other what they counted
UNGUARDED: Final = (
    "not started as `python server.py`: slow and large request heads, and clients that take "
    "nothing in, are for the proxy in front to stop"
)
_LEASE_MARGIN: Final = 60
_UNKNOWN: Final = Price(0, 0, 0)
_NOTHING: Final = Parts(None, None, None, None)


@dataclass(frozen=True, slots=True)
class Keyturn:
    """What the routes need, open and ready.

    Each of the `observers` is told of every turn when it is over, by a call that takes microseconds
    and does not raise.
    """

    settings: Settings
    parts: Parts
    patience: Patience
    store: "redis.Redis"
    hash: KeyedHash
    signer: TokenSigner
    ledger: Ledger
    gate: Gate
    policy: Policy
    own_key_policy: Policy
    upstream: Upstream
    own_key_upstream: OwnKeyUpstream
    turns: Turns
    metrics: SharedMetrics | None = None
    console: Console | None = None
    observers: tuple[Observer, ...] = ()
    noticed: set[str] = field(default_factory=set)


@asynccontextmanager
async def from_environment() -> AsyncIterator[Keyturn]:
    """The house that the environment describes, with embedded parts for what is missing."""
    settings = read_settings()
    alone = HANDED_OVER not in os.environ
    if alone:
        log.warning(UNGUARDED)
    with ending_with_parent(), embedded_for(settings) as parts:
        if alone:
            await require_safe_store(settings, parts)
        given = os.environ.get(SHARED)
        shared = Path(given) if given else None
        async with open_house(settings, parts, shared=shared, reread=read_settings) as keyturn:
            gc.collect()
            gc.freeze()  # else all of this is looked through again while every stream waits
            yield keyturn


@asynccontextmanager
async def open_house(
    settings: Settings,
    parts: Parts = _NOTHING,
    patience: Patience = DEFAULT,
    shared: Path | None = None,
    reread: Callable[[], Settings] | None = None,
) -> AsyncIterator[Keyturn]:
    """Build every part, yield when ready, and wait for settlements on the way out.

    Workers of one server have a `shared` directory for what they count. Where the settings can be
    read again, their new keys are taken up.
    """
    store = _connect(settings, parts)
    session = new_session(connections=settings.max_streams, patience=patience)
    keyturn = _build(settings, parts, patience, store, session, shared)
    recorded = AsyncExitStack()  # left after the last turn, which is to be counted too
    try:
        if keyturn.console:
            await recorded.enter_async_context(recording(keyturn.console.recorder))
        async with looking_at(store, keyturn.ledger, must_persist=settings.production):
            with draining_on_signal(keyturn.turns, settings.drain_seconds):
                counting = keyturn.metrics.shared() if keyturn.metrics else nullcontext()
                async with counting, _rotating(keyturn, reread):
                    yield keyturn
    finally:
        await keyturn.turns.settled()
        await recorded.aclose()
        await keyturn.own_key_upstream.close()
        await session.close()
        await store.aclose()


def _rotating(
    keyturn: Keyturn, reread: Callable[[], Settings] | None
) -> AbstractAsyncContextManager[None]:
    if reread is None:
        return nullcontext()
    return rotating(
        Rotation(
            *(keyturn.settings, keyturn.parts),
            operator=keyturn.upstream.keys,
            signer=keyturn.signer,
            reread=reread,
        )
    )


async def require_safe_store(settings: Settings, parts: Parts) -> None:
    """Raise `SettingsError` when the store answers and might forget; silence is no reason.

    Outside production one that does not persist is only warned of, where money is at stake.
    """
    store, reasons, doubts = _connect(settings, parts), list[str](), list[str]()
    fenced, at_stake = _is_fenced(settings, parts), bool(settings.openai_api_key)
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


@contextmanager
def embedded_for(settings: Settings) -> Iterator[Parts]:
    """What the operator has not brought, started here unless a parent process handed it over."""
    given = os.environ.get(HANDED_OVER)
    if given:
        yield _parts_from(given)
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


def _parts_from(given: str) -> Parts:
    redis_url, upstream_url, secret, store_name = json.loads(given)
    return Parts(redis_url, upstream_url, SecretStr(secret) if secret else None, store_name)


def _connect(settings: Settings, parts: Parts) -> "redis.Redis":
    given = settings.redis_url.get_secret_value() if settings.redis_url else MEMORY
    return connect(
        parts.redis_url or given,
        timeout=settings.redis_timeout_ms / 1000,
        connect_timeout=settings.redis_connect_timeout_ms / 1000,
        tenant=settings.tenant,
    )


def _build(
    settings: Settings,
    parts: Parts,
    patience: Patience,
    store: "redis.Redis",
    session: aiohttp.ClientSession,
    shared: Path | None,
) -> Keyturn:
    keys = token_keys(settings, parts)
    keyed_hash = KeyedHash(identity_of(settings, keys))
    counted = Metrics({*settings.allowed_models, *settings.byok_models})
    ledger = _ledger(settings, store, counted, fenced=_is_fenced(settings, parts))
    operator, own_key = _destinations(settings, parts)
    policy = _policy(settings, operator)
    own_key_policy = _own_key_policy(policy, settings.byok_models, own_key)
    capacity = Capacity(settings.max_streams)
    turns = Turns(
        *(ledger, capacity),
        max_seconds=settings.max_stream_seconds,
        abort_margin=settings.abort_margin_tokens,
    )
    signer = TokenSigner(keys, tenant=settings.tenant)
    console = console_of(settings, store, capacity, signer)
    gate = Gate(
        signer=signer,
        keyed_hash=keyed_hash,
        ledger=ledger,
        capacity=capacity,
        upstream=operator.breaker,
        own_upstream=own_key.breaker,
        forget=turns.forget,
        clock_ms=now_ms,
        max_skew=settings.timestamp_max_skew,
        token_ttl=settings.token_ttl,
    )

    def state() -> Samples:
        breakers = {
            "redis": ledger.breaker,
            "upstream": operator.breaker,
            "own_key_upstream": own_key.breaker,
        }
        return state_of(
            streams=turns.in_flight,
            limit=settings.max_streams,
            draining=turns.draining,
            breakers={name: breaker.is_open for name, breaker in breakers.items()},
        )

    return Keyturn(
        settings=settings,
        parts=parts,
        patience=patience,
        store=store,
        hash=keyed_hash,
        signer=signer,
        ledger=ledger,
        gate=gate,
        policy=policy,
        own_key_policy=own_key_policy,
        upstream=Upstream(session, operator=operator, own_key=own_key),
        own_key_upstream=OwnKeyUpstream(
            settings.byok_base_url,
            policy=own_key_policy,
            connections=settings.max_streams,
            patience=patience,
            breaker=own_key.breaker,
        ),
        turns=turns,
        metrics=SharedMetrics(counted, state, shared) if settings.metrics_token else None,
        console=console,
        observers=(
            write_turn,
            trace_turn,
            *((counted.turn,) if settings.metrics_token else ()),
            *((console.tally,) if console else ()),
        ),
    )


def _destinations(settings: Settings, parts: Parts) -> tuple[Destination, Destination]:
    """Where the operator's keys go, or the demo's word for one; and where visitors' keys go."""
    url, keys = settings.openai_base_url, settings.openai_api_key
    if parts.upstream_url:
        url, keys = parts.upstream_url, (SecretStr("demo"),)
    own_key = Destination(settings.byok_base_url, _operator_keys(()), _upstream_breaker())
    return Destination(url, _operator_keys(keys), _upstream_breaker()), own_key


def _operator_keys(keys: tuple[SecretStr, ...]) -> OperatorKeys:
    return OperatorKeys(keys, clock=time.monotonic)


def _is_fenced(settings: Settings, parts: Parts) -> bool:
    """Whether an earlier life of the store is not believed; one in this process has only one."""
    return settings.failover_fence and parts.redis_url != MEMORY


def _ledger(settings: Settings, store: "redis.Redis", counted: Metrics, *, fenced: bool) -> Ledger:
    return Ledger(
        store,
        tenant=settings.tenant,
        limits=Limits(
            rate=settings.rate_limit,
            start=start_burst(settings.start_limit),
            start_of_all=settings.start_limit_global,
            refused_own_keys=settings.byok_reject_limit,
            lease=settings.max_stream_seconds + _LEASE_MARGIN,
            streams_per_address=settings.max_streams_per_ip,
            streams_per_chain=settings.max_streams_per_chain,
            token_ttl=settings.token_ttl,
            chain_ttl=settings.chain_ttl,
            reuse_grace=settings.reuse_grace,
            recovery_window=settings.recovery_window,
            caps=settings.caps,
            failover_fence=fenced,
        ),
        deadlines=Deadlines(
            command=settings.redis_timeout_ms / 1000, whole=settings.redis_deadline_ms / 1000
        ),
        breaker=Breaker(failures=3, open_for=1, clock=time.monotonic),
        told=counted.redis_call if settings.metrics_token else nobody,
    )


def policy_of(settings: Settings) -> Policy:
    """What visitors may ask for by the operator's key."""
    return _policy(settings, _destinations(settings, _NOTHING)[0])


def _policy(settings: Settings, upstream: Destination) -> Policy:
    prices, identified = settings.prices, settings.safety_identifier
    return Policy(
        models=settings.allowed_models,
        default_model=settings.default_model,
        max_output_tokens=settings.max_output_tokens,
        max_messages=settings.max_messages,
        max_message_chars=settings.max_message_chars,
        system_prompt=settings.locked_prompt,
        prices={model: prices[model] for model in settings.allowed_models},
        allow_tools=settings.allow_tools,
        unstored=upstream.is_openai,
        identified=upstream.is_openai if identified is None else identified,
    )


def _own_key_policy(policy: Policy, models: tuple[str, ...], upstream: Destination) -> Policy:
    """The same limits for visitors who pay; the models and the system prompt are theirs."""
    return replace(
        policy,
        system_prompt=None,
        models=models,
        default_model=policy.default_model if policy.default_model in models else models[0],
        prices={model: policy.prices.get(model, _UNKNOWN) for model in models},
        unstored=upstream.is_openai,
        identified=False,
    )


def _upstream_breaker() -> Breaker:
    return Breaker(failures=5, open_for=5, clock=time.monotonic)
