"""When Redis cannot be relied on nobody gets in, and nothing is half done."""

import asyncio
from collections.abc import Awaitable

import pytest
from redis.exceptions import NoScriptError, RedisError

from security.ledger import Ledger, new_rid
from security.scripts import Visitor
from security.store import connect
from tests.security.ledger_stage import (
    HOME,
    PREFIX,
    STRICT,
    Altered,
    Chain,
    Clock,
    Store,
    contents,
    fill,
    ledger_on,
    outcome,
)
from tests.stage import redis_process

ADMITTED = ("admitted", "advanced")
OUT = ("store_unavailable", "kept")
UNKNOWN = ("store_unavailable", "unknown")
SWEEP_FIRST = "redis.call('ZREMRANGEBYSCORE', KEYS[5], '-inf', '0')\nlocal rate = tiers("


async def test_a_full_redis_admits_nobody(own_store: Store) -> None:
    """At maxmemory no turn, no start, no own key and no guess passes, and nothing is written."""
    chain = await Chain(ledger_on(own_store), own_store).take(3)
    await fill(own_store)
    before = await contents(own_store)
    for attempt in range(5):
        assert await outcome(_attempt(attempt, ledger_on(own_store), chain)) == OUT
    assert await contents(own_store) == before


def _attempt(which: int, ledger: Ledger, chain: Chain) -> Awaitable[object]:
    """The newest token, an old one, a new chain, an own key, a guess."""
    return (
        lambda: chain.through(ledger).redeem(),
        lambda: chain.through(ledger).redeem(1),
        lambda: Chain(ledger, chain.store).redeem(),
        lambda: ledger.admit_own_key(new_rid(), HOME),
        lambda: ledger.probe(new_rid(), HOME),
    )[which]()


async def test_sweeping_first_admits_everybody(own_store: Store) -> None:
    """Control: a script whose first write is a removal runs to its end in a full Redis."""
    sweeping = Altered(own_store, "local rate = tiers(", SWEEP_FIRST)
    chain = await Chain(ledger_on(sweeping), own_store).take(1)
    await fill(own_store)
    assert await outcome(chain.redeem()) == ADMITTED


async def test_a_full_redis_still_settles(own_store: Store) -> None:
    """Places in flight are given back at maxmemory too."""
    chain = Chain(ledger_on(own_store), own_store)
    rid = new_rid()
    await chain.redeem(rid=rid)
    await fill(own_store)
    await chain.ledger.settle(rid, HOME, chain=chain.name)
    assert await own_store.zcard(PREFIX + "inflight:home") == 0


async def test_a_replica_admits_nobody(own_store: Store) -> None:
    """A store that turned read-only (a failover) admits nobody, keeps the token, and recovers."""
    clock = Clock()
    chain = await Chain(ledger_on(own_store, clock=clock), own_store).take(1)
    await own_store.replicaof("127.0.0.1", "1")
    before = await contents(own_store)
    assert await outcome(chain.redeem()) == OUT
    assert await outcome(chain.ledger.settle(new_rid(), HOME, chain=None)) == OUT
    assert await contents(own_store) == before
    await own_store.replicaof("NO", "ONE")
    assert await outcome(chain.redeem()) == ("chain_unknown", "advanced")  # by the fence
    assert await outcome(Chain(chain.ledger, own_store).redeem()) == ADMITTED


async def test_a_replica_loses_its_connections(own_store: Store) -> None:
    """After READONLY every idle connection is closed, so that the next one finds the primary."""
    chain = await Chain(ledger_on(own_store), own_store).take(1)
    first = await own_store.client_id()
    await own_store.replicaof("127.0.0.1", "1")
    assert await own_store.client_id() == first
    assert await outcome(chain.redeem()) == OUT
    assert await own_store.client_id() != first


@pytest.mark.parametrize(
    "name",
    [
        *("control", "rate:n", "rate:w", "inflight:n", "inflight:w", "chain:{c}", "inflight:{c}"),
        *("start:n", "start:w", "start:all"),
    ],
)
async def test_a_key_of_the_wrong_type_admits_nobody(store: Store, name: str) -> None:
    """Whatever key is not what it should be: a first turn writes nothing but its own tick."""
    chain = Chain(ledger_on(store), store, Visitor("n", "w"))
    spoilt = PREFIX + name.format(c=chain.name)
    await store.rpush(spoilt, "nonsense")
    assert await outcome(chain.redeem()) == OUT
    written = set(map(bytes.decode, await store.keys("*"))) - {spoilt}
    assert written <= {PREFIX + "rate:n", PREFIX + "rate:w"}


@pytest.mark.parametrize("name", ["blocked", "reject:home", "inflight:home"])
async def test_a_wrong_type_admits_no_own_key(store: Store, name: str) -> None:
    """The same for visitors who pay for themselves."""
    await store.rpush(PREFIX + name, "nonsense")
    assert await outcome(ledger_on(store).admit_own_key(new_rid(), HOME)) == OUT
    left = set(map(bytes.decode, await store.keys("*")))
    assert left <= {PREFIX + name, PREFIX + "rate:home"}


async def test_forgotten_scripts_are_loaded_again(chain: Chain) -> None:
    """SCRIPT FLUSH (a restart) is not noticed by admission or settlement."""
    rid = new_rid()
    await chain.ledger.load()
    await chain.store.script_flush()
    assert await outcome(chain.redeem(rid=rid)) == ADMITTED
    await chain.store.script_flush()
    await chain.ledger.settle(rid, HOME, chain=chain.name)
    assert await chain.store.zcard(PREFIX + "inflight:home") == 0


async def test_a_flush_does_forget_scripts(chain: Chain) -> None:
    """Control: after SCRIPT FLUSH a bare EVALSHA fails."""
    sha = await chain.store.script_load("return 1")
    await chain.store.script_flush()
    with pytest.raises(NoScriptError):
        await chain.store.evalsha(sha, 0)


async def test_a_hung_redis_is_noticed_in_time(own_store: Store) -> None:
    """A Redis that does not answer refuses within the whole deadline; what became is unknown."""
    chain = await Chain(ledger_on(own_store, deadlines=STRICT), own_store).take(1)
    loop = asyncio.get_running_loop()
    await own_store.client_pause(3_000, all=True)
    began = loop.time()
    assert await outcome(chain.redeem()) == UNKNOWN
    assert loop.time() - began < 0.75


async def test_a_dead_redis_admits_nobody() -> None:
    """Where no Redis listens any more, nobody enters and loading the scripts fails in time."""
    with redis_process() as url:
        store = connect(url, timeout=0.25, connect_timeout=1)
        chain = await Chain(ledger_on(store), store).take(1)
    assert await outcome(chain.redeem()) == UNKNOWN
    with pytest.raises((RedisError, OSError, TimeoutError)):
        await chain.ledger.load()
    await store.aclose()
