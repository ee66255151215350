"""How often: the address rate, the start rates, and probing, each a GCRA of its own."""

import math
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from security.ledger import new_rid
from security.scripts import Rate, Visitor
from tests.security.ledger_stage import (
    HOME,
    HOUR_US,
    PREFIX,
    Chain,
    Store,
    contents,
    ledger_on,
    outcome,
    redis_us,
    refusal,
)

ADMITTED = ("admitted", "advanced")
RATE_KEY = PREFIX + "rate:home"
HOURLY = Rate(burst=3, interval_us=HOUR_US)


async def test_a_burst_is_exact(store: Store) -> None:
    """A burst of three admits three, and each answer tells what is left."""
    chain = Chain(ledger_on(store, rate=HOURLY), store)
    left = [(await chain.redeem()).standing.address for _ in range(3)]
    assert [quota.remaining for quota in left] == [2, 1, 0]
    assert all(3590 < quota.regained_in <= 3600 for quota in left)
    assert await outcome(chain.redeem()) == ("rate_limited", "kept")


async def test_a_refused_request_writes_nothing(store: Store) -> None:
    """Past the rate nothing in Redis changes, however often one asks, and the token is kept."""
    chain = Chain(ledger_on(store, rate=HOURLY), store)
    await chain.take(3)
    before = await contents(store)
    for _ in range(5):
        assert await outcome(chain.redeem()) == ("rate_limited", "kept")
    assert await contents(store) == before
    await store.delete(RATE_KEY)
    assert await outcome(chain.redeem()) == ADMITTED


async def test_retry_after_is_exact(store: Store) -> None:
    """Retry-After is the time until the arrival time leaves room, rounded up to a millisecond."""
    chain = Chain(ledger_on(store, rate=HOURLY), store)
    await chain.take(3)
    arrival = int(await store.get(RATE_KEY))
    room = arrival + HOUR_US - 3 * HOUR_US
    before = await redis_us(store)
    limited = await refusal(chain.redeem())
    after = await redis_us(store)
    assert limited.retry_after is not None
    assert math.ceil((room - after) / 1000) <= round(limited.retry_after * 1000)
    assert round(limited.retry_after * 1000) <= math.ceil((room - before) / 1000)


async def test_waiting_that_long_admits_and_less_does_not(store: Store) -> None:
    """Retry-After is enough, and two seconds less are not."""
    chain = Chain(ledger_on(store, rate=HOURLY), store)
    await chain.take(3)
    arrival = int(await store.get(RATE_KEY))
    waited = (await refusal(chain.redeem())).retry_after
    assert waited is not None
    await store.set(RATE_KEY, arrival - round(waited * 1_000_000) + 2_000_000)
    assert 0 < ((await refusal(chain.redeem())).retry_after or 0) <= 2
    await store.set(RATE_KEY, arrival - round(waited * 1_000_000))
    assert await outcome(chain.redeem()) == ADMITTED


async def test_one_is_regained_per_interval(store: Store) -> None:
    """After one interval one request is admitted, not a whole burst."""
    chain = Chain(ledger_on(store, rate=HOURLY), store)
    await chain.take(3)
    await store.set(RATE_KEY, int(await store.get(RATE_KEY)) - HOUR_US)
    await chain.redeem()
    assert (await refusal(chain.redeem())).code == "rate_limited"


async def test_addresses_are_limited_apart(store: Store) -> None:
    """One visitor at the limit leaves another alone."""
    ledger = ledger_on(store, rate=Rate(1, HOUR_US))
    await Chain(ledger, store, Visitor("one")).take(1)
    assert await outcome(Chain(ledger, store, Visitor("one")).redeem()) == ("rate_limited", "kept")
    assert await outcome(Chain(ledger, store, Visitor("two")).redeem()) == ADMITTED


async def _revoked(chain: Chain) -> None:
    assert await outcome(chain.redeem(1)) == ("token_reused", "revoked")


async def _paused(chain: Chain) -> None:
    await chain.store.hset(PREFIX + "control", "paused", "1")


async def _blocked(chain: Chain) -> None:
    await chain.store.zadd(PREFIX + "blocked", {"home": 9e12})


async def _nothing(chain: Chain) -> None:
    """The chain is as it is: four turns, the last with the key `k`."""


Prepare = Callable[[Chain], Awaitable[None]]


@pytest.mark.parametrize(
    ("code", "prepare", "number", "key"),
    [
        ("chain_unknown", _nothing, 9, ""),
        ("token_reused", _nothing, 3, ""),
        ("token_reused", _nothing, 1, ""),
        ("duplicate_request", _nothing, 3, "k"),
        ("idempotency_conflict", _nothing, 4, "k"),
        ("idempotency_conflict", _nothing, 0, ""),
        ("chain_revoked", _revoked, 4, ""),
        ("paused", _paused, 4, ""),
        ("visitor_blocked", _blocked, 4, ""),
    ],
)
async def test_a_refusal_costs_its_tick(
    store: Store, code: str, prepare: Prepare, number: int, key: str
) -> None:
    """Every outcome but rate_limited takes one tick of the address rate: probing is not free."""
    chain = await Chain(ledger_on(store, rate=Rate(100, HOUR_US)), store).take(3)
    await chain.redeem(idempotency="k")
    await prepare(chain)
    before = int(await store.get(RATE_KEY))
    refused = await refusal(chain.redeem(number, idempotency=key))
    assert refused.code == code
    assert int(await store.get(RATE_KEY)) == before + HOUR_US
    assert refused.standing is not None
    assert refused.standing.address.remaining in (94, 95)


@pytest.mark.parametrize(
    ("code", "limits"),
    [
        ("start_limited", {"start": Rate(1, HOUR_US)}),
        ("start_limited", {"start_of_all": Rate(1, HOUR_US)}),
        ("too_many_streams", {"streams_per_address": 1}),
    ],
)
async def test_a_refused_start_costs_one_tick_and_no_more(
    store: Store, code: str, limits: dict[str, Any]
) -> None:
    """A first turn past another limit writes the address tick and nothing else."""
    ledger = ledger_on(store, rate=Rate(100, HOUR_US), **limits)
    await Chain(ledger, store).take(1)
    before = await contents(store)
    assert await outcome(Chain(ledger, store).redeem()) == (code, "kept")
    before[RATE_KEY] = str(int(before[RATE_KEY]) + HOUR_US).encode()
    assert await contents(store) == before


async def test_starts_are_limited_and_turns_are_not(store: Store) -> None:
    """The start rate counts new chains only, and only first turns are told of it."""
    ledger = ledger_on(store, start=Rate(2, HOUR_US))
    chains = [Chain(ledger, store) for _ in range(3)]
    first, second = await chains[0].redeem(), await chains[1].redeem()
    told = [verdict.standing.start for verdict in (first, second)]
    assert [quota and quota.remaining for quota in told] == [1, 0]
    limited = await refusal(chains[2].redeem())
    assert (limited.code, limited.chain) == ("start_limited", "kept")
    assert 3590 < (limited.retry_after or 0) <= 3600
    assert [(await chains[0].redeem()).standing.start for _ in range(5)] == [None] * 5


async def test_a_repeated_first_turn_is_no_start(store: Store) -> None:
    """Recovering a lost first answer takes nothing from the start rate."""
    chain = Chain(ledger_on(store, start=Rate(1, HOUR_US)), store)
    await chain.redeem(idempotency="k")
    assert (await refusal(chain.redeem(0, idempotency="k"))).code == "duplicate_request"


async def test_starts_of_all_visitors_are_limited(store: Store) -> None:
    """New chains of different visitors share the global start rate; their turns do not."""
    ledger = ledger_on(store, start_of_all=Rate(3, HOUR_US))
    chains = [Chain(ledger, store, Visitor(f"v{index}")) for index in range(4)]
    ended = [await outcome(chain.redeem()) for chain in chains]
    assert ended == [ADMITTED] * 3 + [("start_limited", "kept")]
    assert await outcome(chains[0].redeem()) == ADMITTED


async def test_a_refused_start_takes_no_start(store: Store) -> None:
    """A first turn that one start limit refuses is not counted by the other."""
    ledger = ledger_on(store, start=Rate(1, HOUR_US), start_of_all=Rate(2, HOUR_US))
    await Chain(ledger, store, Visitor("one")).take(1)
    assert (await refusal(Chain(ledger, store, Visitor("one")).redeem())).code == "start_limited"
    assert await outcome(Chain(ledger, store, Visitor("two")).redeem()) == ADMITTED


@pytest.mark.parametrize(
    ("code", "limits"),
    [
        ("rate_limited", {"rate": Rate(1, HOUR_US)}),
        ("start_limited", {"start": Rate(1, HOUR_US)}),
        ("too_many_streams", {"streams_per_address": 1}),
    ],
)
async def test_ipv6_is_limited_by_both_prefixes(
    store: Store, code: str, limits: dict[str, Any]
) -> None:
    """A /64 has the limit, its /48 sixteen times that: who moves within a /48 is stopped."""
    ledger = ledger_on(store, **limits)

    async def ask(narrow: int, wide: str) -> str:
        visitor = Visitor(f"{wide}:{narrow}", wide)
        return (await outcome(Chain(ledger, store, visitor).redeem()))[0]

    assert await ask(0, "w") == "admitted"
    assert await ask(0, "w") == code, "the narrow prefix"
    assert [await ask(narrow, "w") for narrow in range(1, 16)] == ["admitted"] * 15
    assert await ask(16, "w") == code, "the wide prefix"
    assert await ask(16, "x") == "admitted", "another wide prefix"


async def test_the_tightest_tier_is_told(store: Store) -> None:
    """A visitor whose neighbours used up the wide prefix is told what is left of that."""
    ledger = ledger_on(store, rate=Rate(2, HOUR_US))
    for narrow in range(15):
        await Chain(ledger, store, Visitor(f"n{narrow}", "w")).take(2)
    verdict = await Chain(ledger, store, Visitor("n15", "w")).redeem()
    assert verdict.standing.address.remaining == 1
    verdict = await Chain(ledger, store, Visitor("n16", "w")).redeem()
    assert verdict.standing.address.remaining == 0
    limited = await refusal(Chain(ledger, store, Visitor("n17", "w")).redeem())
    assert 215 < (limited.retry_after or 0) <= 225, "a sixteenth of the interval"


async def test_probing_costs_a_tick_and_nothing_else(store: Store) -> None:
    """A guess takes one tick of the same rate as a turn, and past it is refused."""
    ledger = ledger_on(store, rate=HOURLY)
    assert [(await ledger.probe(new_rid(), HOME)).address.remaining for _ in range(2)] == [2, 1]
    assert list(await contents(store)) == [RATE_KEY]
    assert await outcome(Chain(ledger, store).redeem()) == ADMITTED
    assert await outcome(ledger.probe(new_rid(), HOME)) == ("rate_limited", "kept")


async def test_guesses_over_a_wide_prefix_are_counted_together(store: Store) -> None:
    """Guessing from many /64 of one /48 runs into the wide limit."""
    ledger = ledger_on(store, rate=Rate(1, HOUR_US))
    for narrow in range(16):
        await ledger.probe(new_rid(), Visitor(f"n{narrow}", "w"))
    limited = await refusal(ledger.probe(new_rid(), Visitor("n16", "w")))
    assert limited.code == "rate_limited"
