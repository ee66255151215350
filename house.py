"""The house: every part, built from the settings, opened in order and closed in reverse."""

import gc
import logging
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    nullcontext,
)
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import redis.asyncio as redis

from completions.connections import Pool
from completions.own_key import OwnKeyUpstream
from completions.request import Policy
from completions.turns import Turns
from completions.upstream import Upstream
from console import Console, console_of
from edge import now_ms
from embedded import Parts
from metrics import Metrics, Samples, state_of
from patience import DEFAULT, Patience
from policies import destinations, own_key_policy, policy_for
from provisions import (
    HANDED_OVER,
    NOTHING,
    SHARED,
    connected,
    embedded_for,
    is_fenced,
    require_safe_store,
)
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
from security.trust import looking_at
from setting_types import start_burst
from settings import Settings, read_settings
from shared_metrics import SharedMetrics
from signals import draining_on_signal, ending_with_parent
from turn_log import write_turn
from turn_record import Observer
from turn_trace import is_tracing, trace_turn

log = logging.getLogger("keyturn")

UNGUARDED: Final = (
    "not started as `python server.py`: slow and large request heads, and clients that take "
    "nothing in, are for the proxy in front to stop"
)
_LEASE_MARGIN: Final = 60
# Containers that may be there more than at the last look for garbage. A few turns at once make
# Python's 700, and there is nothing to find: no turn leaves a cycle behind. What else may leave one
# waits until there are so many, which are a few MiB.
_MOST_UNSEEN: Final = 5_000


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
            gc.set_threshold(_MOST_UNSEEN)
            yield keyturn


@asynccontextmanager
async def open_house(
    settings: Settings,
    parts: Parts = NOTHING,
    patience: Patience = DEFAULT,
    shared: Path | None = None,
    reread: Callable[[], Settings] | None = None,
) -> AsyncIterator[Keyturn]:
    """Build every part, yield when ready, and wait for settlements on the way out.

    Workers of one server have a `shared` directory for what they count. Where the settings can be
    read again, their new keys are taken up.
    """
    store = connected(settings, parts)
    pool = Pool(connections=settings.max_streams, patience=patience)
    keyturn = _build(settings, parts, patience, store, pool, shared)
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
        await pool.close()
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


def _build(
    settings: Settings,
    parts: Parts,
    patience: Patience,
    store: "redis.Redis",
    pool: Pool,
    shared: Path | None,
) -> Keyturn:
    keys = token_keys(settings, parts)
    keyed_hash = KeyedHash(identity_of(settings, keys))
    counted = Metrics({*settings.allowed_models, *settings.byok_models})
    ledger = _ledger(settings, store, counted, fenced=is_fenced(settings, parts))
    operator, own_key = destinations(settings, parts)
    policy = policy_for(settings, operator)
    own_policy = own_key_policy(policy, settings.byok_models, own_key)
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
        own_key_policy=own_policy,
        upstream=Upstream(pool, operator=operator, own_key=own_key),
        own_key_upstream=OwnKeyUpstream(
            settings.byok_base_url,
            policy=own_policy,
            connections=settings.max_streams,
            patience=patience,
            breaker=own_key.breaker,
        ),
        turns=turns,
        metrics=SharedMetrics(counted, state, shared) if settings.metrics_token else None,
        console=console,
        observers=(
            write_turn,
            *((trace_turn,) if is_tracing() else ()),
            *((counted.turn,) if settings.metrics_token else ()),
            *((console.tally,) if console else ()),
        ),
    )


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
