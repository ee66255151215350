"""Streams in flight and their leases, own keys, and the operator's hand on the tap."""

import pytest

from security.ledger import new_rid
from security.scripts import Rate, Visitor
from tests.security.ledger_stage import (
    HOME,
    HOUR_US,
    PREFIX,
    Altered,
    Chain,
    Store,
    contents,
    ledger_on,
    outcome,
    redis_us,
    refusal,
)

ADMITTED = ("admitted", "advanced")
FULL = ("too_many_streams", "kept")
INFLIGHT = PREFIX + "inflight:home"


async def test_a_chain_has_so_many_streams(store: Store) -> None:
    """The third turn in flight of one chain is refused and its token kept; settling one admits."""
    chain = Chain(ledger_on(store, streams_per_chain=2), store)
    rid = new_rid()
    await chain.redeem(rid=rid)
    await chain.redeem()
    full = await refusal(chain.redeem())
    assert (full.code, full.chain, full.retry_after) == (*FULL, 1)
    await chain.ledger.settle(rid, HOME, chain=chain.name)
    assert await outcome(chain.redeem()) == ADMITTED
    assert await outcome(chain.redeem()) == FULL


async def test_an_address_has_so_many_streams(store: Store) -> None:
    """Streams of different chains, and those with an own key, count for their address."""
    ledger = ledger_on(store, streams_per_address=2)
    rid = new_rid()
    await Chain(ledger, store).redeem(rid=rid)
    await ledger.admit_own_key(new_rid(), HOME)
    assert await outcome(Chain(ledger, store).redeem()) == FULL
    assert await outcome(ledger.admit_own_key(new_rid(), HOME)) == ("too_many_streams", "none")
    assert await outcome(Chain(ledger, store, Visitor("other")).redeem()) == ADMITTED
    await ledger.settle(rid, HOME, chain=None)
    assert await outcome(Chain(ledger, store).redeem()) == ADMITTED


async def test_settling_frees_the_wide_prefix_too(store: Store) -> None:
    """An IPv6 visitor's stream ends in both prefixes and in its chain."""
    chain = Chain(ledger_on(store), store, Visitor("n", "w"))
    rid = new_rid()
    await chain.redeem(rid=rid)
    held = [f"{PREFIX}inflight:{name}" for name in ("n", "w", chain.name)]
    assert [await store.zcard(key) for key in held] == [1, 1, 1]
    await chain.ledger.settle(rid, chain.visitor, chain=chain.name)
    assert [await store.zcard(key) for key in held] == [0, 0, 0]


async def test_a_lease_ends_by_itself(store: Store) -> None:
    """The place of a worker that died is free when its lease is over, and is swept away."""
    chain = Chain(ledger_on(store, streams_per_address=1, lease=360), store)
    rid = new_rid()
    await chain.redeem(rid=rid)
    now_ms = await redis_us(store) // 1000
    (_, end), *_ = await store.zrange(INFLIGHT, 0, -1, withscores=True)
    assert now_ms + 355_000 < end <= now_ms + 360_000
    assert await outcome(chain.redeem()) == FULL
    await store.zadd(INFLIGHT, {rid: now_ms - 1})
    assert await outcome(chain.redeem()) == ADMITTED
    assert await store.zscore(INFLIGHT, rid) is None


async def test_settling_twice_is_settling_once(store: Store) -> None:
    """A second settlement, or one of a stranger's rid, leaves a mark for a minute, and no more."""
    chain = Chain(ledger_on(store), store)
    rid, stranger = new_rid(), new_rid()
    await chain.redeem(rid=rid)
    await chain.redeem()
    await chain.ledger.settle(rid, HOME, chain=chain.name)
    before = await contents(store)
    await chain.ledger.settle(rid, HOME, chain=chain.name)
    await chain.ledger.settle(stranger, HOME, chain=chain.name)
    marks = [f"{PREFIX}closed:{name}" for name in (rid, stranger)]
    assert marks[0] in before
    assert await contents(store) == before | {marks[1]: b"1"}
    for mark in marks:
        assert 55_000 < await store.pttl(mark) <= 60_000


async def test_settling_leaves_the_token_alone(chain: Chain) -> None:
    """A settled turn stays spent and its successor stays good."""
    rid = new_rid()
    await chain.redeem(rid=rid)
    await chain.ledger.settle(rid, HOME, chain=chain.name)
    assert await outcome(chain.redeem(0)) == ("idempotency_conflict", "kept")
    assert await outcome(chain.redeem()) == ADMITTED


async def test_an_own_key_has_no_chain(store: Store) -> None:
    """Who pays for themselves takes a tick and a place, and leaves no other trace."""
    ledger = ledger_on(store, rate=Rate(2, HOUR_US))
    rid = new_rid()
    standing = await ledger.admit_own_key(rid, HOME)
    assert (standing.address.remaining, standing.start) == (1, None)
    assert set(await contents(store)) == {INFLIGHT, PREFIX + "rate:home"}
    again = await ledger.admit_own_key(rid, HOME)
    assert again.address.remaining == 1, "the same call again gets its first outcome"
    await ledger.settle(rid, HOME, chain=None)
    assert await store.zcard(INFLIGHT) == 0
    await ledger.admit_own_key(new_rid(), HOME)
    assert await outcome(ledger.admit_own_key(new_rid(), HOME)) == ("rate_limited", "kept")


async def test_refused_own_keys_are_limited(store: Store) -> None:
    """After three keys that upstream refused, the address waits; we check no stolen keys."""
    ledger = ledger_on(store, refused_own_keys=Rate(3, HOUR_US))
    for _ in range(3):
        rid = new_rid()
        await ledger.admit_own_key(rid, HOME)
        await ledger.settle(rid, HOME, chain=None, key_refused=True)
    limited = await refusal(ledger.admit_own_key(new_rid(), HOME))
    assert (limited.code, limited.chain) == ("rate_limited", "none")
    assert 3590 < (limited.retry_after or 0) <= 3600
    assert await outcome(Chain(ledger, store).redeem()) == ADMITTED, "chains are not meant"
    await ledger.admit_own_key(new_rid(), Visitor("other"))


async def test_good_own_keys_are_not_counted(store: Store) -> None:
    """Keys that upstream accepts take nothing from the limit of refused ones."""
    ledger = ledger_on(store, refused_own_keys=Rate(1, HOUR_US))
    for _ in range(5):
        rid = new_rid()
        await ledger.admit_own_key(rid, HOME)
        await ledger.settle(rid, HOME, chain=None)
    assert await store.exists(PREFIX + "reject:home") == 0


async def test_waiting_admits_after_refused_keys(store: Store) -> None:
    """The Retry-After of refused keys is enough."""
    ledger = ledger_on(store, refused_own_keys=Rate(1, HOUR_US))
    rid = new_rid()
    await ledger.admit_own_key(rid, HOME)
    await ledger.settle(rid, HOME, chain=None, key_refused=True)
    waited = (await refusal(ledger.admit_own_key(new_rid(), HOME))).retry_after
    key = PREFIX + "reject:home"
    await store.set(key, int(await store.get(key)) - round((waited or 0) * 1_000_000))
    await ledger.admit_own_key(new_rid(), HOME)


async def _settle_thrice(store: Store, under: object) -> int:
    """How many refused keys one refused key is counted as, when its settlement is repeated."""
    ledger = ledger_on(under, refused_own_keys=Rate(10, HOUR_US))
    rid = new_rid()
    await ledger.admit_own_key(rid, HOME)
    before = await redis_us(store)
    for _ in range(3):
        await ledger.settle(rid, HOME, chain=None, key_refused=True)
    return round((int(await store.get(PREFIX + "reject:home")) - before) / HOUR_US)


async def test_a_refused_key_is_counted_once(store: Store) -> None:
    """A settlement that is repeated counts the refused key once."""
    assert await _settle_thrice(store, store) == 1


async def test_counting_without_looking_counts_thrice(store: Store) -> None:
    """Control: a script that does not ask whether the turn was open counts every repeat."""
    blind = Altered(store, "open == 1 and ", "", script="Ends")
    assert await _settle_thrice(store, blind) == 3


async def test_the_operator_pauses(store: Store) -> None:
    """While paused nobody spends the operator's key, tokens are kept, and own keys pass."""
    chain = await Chain(ledger_on(store), store).take(1)
    await store.hset(PREFIX + "control", "paused", "1")
    assert await outcome(chain.redeem()) == ("paused", "kept")
    assert await outcome(Chain(chain.ledger, store).redeem()) == ("paused", "kept")
    await chain.ledger.admit_own_key(new_rid(), HOME)
    await store.hset(PREFIX + "control", "paused", "0")
    assert await outcome(chain.redeem()) == ADMITTED


async def test_a_pause_hides_no_theft(store: Store) -> None:
    """The chain is judged before the pause: a thief revokes, a duplicate is still recovered."""
    chain = await Chain(ledger_on(store), store).take(3)
    await chain.redeem(idempotency="k")
    await store.hset(PREFIX + "control", "paused", "1")
    assert (await refusal(chain.redeem(3, idempotency="k"))).code == "duplicate_request"
    assert await outcome(chain.redeem(1)) == ("token_reused", "revoked")


@pytest.mark.parametrize("name", ["n", "w"])
async def test_a_blocked_visitor_stays_out(store: Store, name: str) -> None:
    """Blocked by the narrow or the wide prefix: no turn, no own key, until the time is over."""
    chain = await Chain(ledger_on(store), store, Visitor("n", "w")).take(1)
    now_ms = await redis_us(store) // 1000
    await store.zadd(PREFIX + "blocked", {name: now_ms + 60_000})
    assert await outcome(chain.redeem()) == ("visitor_blocked", "kept")
    own_key = chain.ledger.admit_own_key(new_rid(), chain.visitor)
    assert await outcome(own_key) == ("visitor_blocked", "kept")
    await store.zadd(PREFIX + "blocked", {name: now_ms - 1})
    assert await outcome(chain.redeem()) == ADMITTED


async def test_a_block_is_for_the_one_named(store: Store) -> None:
    """Others, also of the same wide prefix, go on."""
    ledger = ledger_on(store)
    await store.zadd(PREFIX + "blocked", {"n": 9e12})
    assert await outcome(Chain(ledger, store, Visitor("m", "w")).redeem()) == ADMITTED
    assert await outcome(Chain(ledger, store, HOME).redeem()) == ADMITTED


async def test_refused_keys_over_a_wide_prefix_are_counted_together(store: Store) -> None:
    """Trying keys from many /64 of one /48 runs into the wide limit: 16 times that of one."""
    ledger = ledger_on(store, refused_own_keys=Rate(1, HOUR_US))
    for number in range(16):
        rid, visitor = new_rid(), Visitor(f"narrow-{number}", "wide")
        await ledger.admit_own_key(rid, visitor)
        await ledger.settle(rid, visitor, chain=None, key_refused=True)
    fresh = Visitor("narrow-of-nobody-yet", "wide")
    assert await outcome(ledger.admit_own_key(new_rid(), fresh)) == ("rate_limited", "none")
    await ledger.admit_own_key(new_rid(), Visitor("narrow-elsewhere", "another"))
