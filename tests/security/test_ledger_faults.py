"""When Redis cannot be relied on nobody gets in, nothing is half done, and we stop asking."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from security.ledger import Ledger, Rate, Visitor, new_rid
from security.store import connect
from tests.security.ledger_stage import (
    HOME,
    HOUR_US,
    PREFIX,
    Altered,
    Chain,
    Clock,
    Store,
    contents,
    ledger_on,
    outcome,
)
from tests.stage import eventually, redis_process

ADMITTED = ("admitted", "advanced")
OUT = ("store_unavailable", "kept")
RATE_KEY = PREFIX + "rate:home"
UNKNOWN = ("store_unavailable", "unknown")
SWEEP_FIRST = "redis.call('ZREMRANGEBYSCORE', KEYS[5], '-inf', '0')\nlocal rate = tiers("


@pytest.fixture
async def own_store() -> AsyncIterator[Store]:
    """A redis-server of this test alone, to be broken."""
    with redis_process("--maxmemory-policy", "noeviction") as url:
        store = connect(url, timeout=0.25, connect_timeout=1)
        yield store
        await store.aclose()


async def _fill(store: Store) -> None:
    await store.set("ballast", b"x" * 100_000)
    await store.config_set("maxmemory", 1)


async def test_a_full_redis_admits_nobody(own_store: Store) -> None:
    """At maxmemory no turn, no start, no own key and no guess passes, and nothing is written."""
    chain = await Chain(ledger_on(own_store), own_store).take(3)
    await _fill(own_store)
    before = await contents(own_store)
    for attempt in range(5):
        assert await outcome(_attempt(attempt, ledger_on(own_store), chain)) == OUT
    assert await contents(own_store) == before


def _attempt(which: int, ledger: Ledger, chain: Chain) -> Awaitable[object]:
    """The newest token, an old one, a new chain, an own key, a guess."""
    return (
        lambda: chain_on(ledger, chain).redeem(),
        lambda: chain_on(ledger, chain).redeem(1),
        lambda: Chain(ledger, chain.store).redeem(),
        lambda: ledger.admit_own_key(new_rid(), HOME),
        lambda: ledger.probe(new_rid(), HOME),
    )[which]()


def chain_on(ledger: Ledger, chain: Chain) -> Chain:
    """The same chain through another ledger, whose breaker is closed."""
    return Chain(ledger, chain.store, chain.visitor, chain.name, chain.number, chain.born_ms)


async def test_sweeping_first_admits_everybody(own_store: Store) -> None:
    """Control: a script whose first write is a removal runs to its end in a full Redis."""
    sweeping = Altered(own_store, "local rate = tiers(", SWEEP_FIRST)
    chain = await Chain(ledger_on(sweeping), own_store).take(1)
    await _fill(own_store)
    assert await outcome(chain.redeem()) == ADMITTED


async def test_a_full_redis_still_settles(own_store: Store) -> None:
    """Places in flight are given back at maxmemory too."""
    chain = Chain(ledger_on(own_store), own_store)
    rid = new_rid()
    await chain.redeem(rid=rid)
    await _fill(own_store)
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
    assert await outcome(chain.redeem()) == ADMITTED


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


class Scripted:
    """A store whose script answers what it is told, while it is open, and counts the askers."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked = 0
        self.dropped = 0
        self.open = asyncio.Event()
        self.open.set()
        self.connection_pool = self

    def register_script(self, _: str) -> Any:
        """A script that gives the next answer; the last one for ever."""

        async def script(_keys: Sequence[str], argv: Sequence[str]) -> Any:
            self.asked += 1
            await self.open.wait()
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            if isinstance(answer, Exception):
                raise answer
            return answer(argv)

        return script

    async def disconnect(self, inuse_connections: bool = True) -> None:
        """Count that connections were dropped."""
        self.dropped += 1


def good(argv: Sequence[str]) -> list[bytes | int]:
    """The reply to an admission of turn 1."""
    return [argv[1].encode(), b"admitted", b"advanced", 1, 5, 5, 0, 9, 1, -1, -1]


def foreign(_: Sequence[str]) -> list[bytes | int]:
    """The reply to somebody else."""
    return [b"another-rid", b"admitted", b"advanced", 1, 5, 5, 0, 9, 1, -1, -1]


def ask(ledger: Ledger) -> Any:
    """Ask for a first turn."""
    return outcome(Chain(ledger, store=None).redeem())


@pytest.mark.parametrize("reply", [foreign, lambda _: [], lambda _: None])
async def test_a_foreign_reply_is_refused(reply: Any) -> None:
    """A reply that does not carry our rid is nobody's admission, and its connection is dropped."""
    store = Scripted(reply)
    assert await ask(ledger_on(store)) == UNKNOWN
    assert store.dropped == 1


async def test_our_own_reply_is_taken() -> None:
    """Control: the same reply under our rid admits."""
    assert await ask(ledger_on(Scripted(good))) == ADMITTED


async def test_silence_is_asked_once_more() -> None:
    """A broken connection is tried once again, and the chain is unknown when that fails too."""
    store = Scripted(RedisConnectionError(), good)
    assert await ask(ledger_on(store)) == ADMITTED
    assert store.asked == 2
    store = Scripted(RedisConnectionError())
    assert await ask(ledger_on(store)) == UNKNOWN
    assert store.asked == 2


async def test_an_error_is_not_asked_again() -> None:
    """An error that Redis answered is final: it says that nothing was written."""
    store = Scripted(ResponseError("OOM"))
    assert await ask(ledger_on(store)) == OUT
    assert store.asked == 1


async def test_three_failures_open_the_breaker_for_a_second() -> None:
    """After three failures in a row Redis is not asked; after a second one caller may probe."""
    clock, store = Clock(), Scripted(ResponseError("no"))
    ledger = ledger_on(store, clock=clock)
    assert [await ask(ledger) for _ in range(5)] == [OUT] * 5
    assert store.asked == 3
    clock.now += 0.99
    await ask(ledger)
    assert store.asked == 3
    clock.now += 0.02
    assert [await ask(ledger) for _ in range(5)] == [OUT] * 5
    assert store.asked == 4, "one probe"


async def test_a_good_probe_closes_the_breaker() -> None:
    """The probe that is answered lets everybody in again."""
    clock, bad = Clock(), ResponseError("no")
    store = Scripted(bad, bad, bad, good)
    ledger = ledger_on(store, clock=clock)
    for _ in range(3):
        await ask(ledger)
    clock.now += 1.01
    assert [await ask(ledger) for _ in range(5)] == [ADMITTED] * 5


async def test_one_probe_at_a_time() -> None:
    """Of many that come when the pause is over, one asks and the others are refused at once."""
    clock, store = Clock(), Scripted(ResponseError("no"))
    ledger = ledger_on(store, clock=clock)
    for _ in range(3):
        await ask(ledger)
    clock.now += 1.01
    store.answers, store.open = [good], asyncio.Event()
    probe = asyncio.create_task(ask(ledger))
    await eventually(lambda: _is(store.asked == 4))
    assert [await ask(ledger) for _ in range(20)] == [OUT] * 20
    store.open.set()
    assert await probe == ADMITTED
    assert await ask(ledger) == ADMITTED


async def _is(truth: bool) -> bool:
    return truth


async def test_failures_apart_do_not_add_up() -> None:
    """Two failures and a success, again and again, never open the breaker."""
    bad = ResponseError("no")
    store = Scripted(*[bad, bad, good] * 5)
    ledger = ledger_on(store)
    ended = [await ask(ledger) for _ in range(15)]
    assert ended == [OUT, OUT, ADMITTED] * 5


async def test_refusals_are_no_failures(chain: Chain) -> None:
    """A store that refuses thieves all day is a healthy store."""
    await chain.take(3)
    await outcome(chain.redeem(1))
    assert {await outcome(chain.redeem(1)) for _ in range(5)} == {("chain_revoked", "revoked")}


async def test_a_hung_redis_is_noticed_in_time(own_store: Store) -> None:
    """A Redis that does not answer refuses within the whole deadline; what became is unknown."""
    chain = await Chain(ledger_on(own_store), own_store).take(1)
    loop = asyncio.get_running_loop()
    await own_store.client_pause(3_000, all=True)
    began = loop.time()
    assert await outcome(chain.redeem()) == UNKNOWN
    assert loop.time() - began < 0.75


class Lossy:
    """A store that does what it is asked, and whose first answer is lost on the way."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.connection_pool = store.connection_pool
        self.lost = 0

    def register_script(self, text: str) -> Any:
        """The real script, whose first reply becomes silence."""
        real = self._store.register_script(text)

        async def script(keys: Sequence[str], argv: Sequence[str]) -> Any:
            reply = await real(keys, argv)
            if not self.lost:
                self.lost += 1
                raise RedisTimeoutError
            return reply

        return script


HOURLY = Rate(10, HOUR_US)


@pytest.mark.parametrize("number", [0, 1])
async def test_a_lost_reply_is_one_turn_and_one_tick(chain: Chain, number: int) -> None:
    """A call that was carried out, and its repeat by us, are one turn, one tick and one place."""
    await chain.take(number)
    lossy = Lossy(chain.store)
    again = chain_on(ledger_on(lossy, rate=HOURLY), chain)
    await chain.store.flushdb() if number == 0 else await chain.store.delete(RATE_KEY)
    verdict = await again.redeem()
    assert (lossy.lost, verdict.number) == (1, number + 1)
    assert verdict.standing.address.remaining == 9
    assert await chain.store.zcard(f"{PREFIX}inflight:{chain.name}") == number + 1


async def test_without_a_memory_of_rids_the_repeat_is_a_reuse(chain: Chain) -> None:
    """Control: a script that does not know its rid again turns the honest visitor away."""
    await chain.take(1)
    forgetful: Any = Altered(chain.store, "chain.rid == rid", "false")
    again = chain_on(ledger_on(Lossy(forgetful)), chain)
    assert await outcome(again.redeem()) == ("token_reused", "kept")


async def test_a_lost_own_key_reply_is_one_place(store: Store) -> None:
    """The same for visitors who pay: one tick, one place."""
    ledger = ledger_on(Lossy(store), rate=HOURLY)
    assert (await ledger.admit_own_key(new_rid(), HOME)).address.remaining == 9
    assert await store.zcard(PREFIX + "inflight:home") == 1


async def test_a_cancelled_call_leaves_no_reply_behind(real_store: Store) -> None:
    """Whoever is cancelled at whatever point, the next caller gets their own reply."""
    chain = Chain(ledger_on(real_store), real_store)
    await chain.ledger.load()
    left, carried_out = [], 0
    for steps in [*range(30)] * 3:
        gone = Chain(chain.ledger, real_store)
        task = asyncio.create_task(gone.redeem())
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        assert (await chain.redeem()).number == chain.number
        await asyncio.wait([task])
        left.append(task.cancelled())
        carried_out += task.cancelled() and await real_store.exists(gone.key)
    assert any(left)
    assert carried_out, "some were cancelled between their question and its answer"


async def test_a_dead_redis_admits_nobody() -> None:
    """Where no Redis listens any more, nobody enters and loading the scripts fails in time."""
    with redis_process() as url:
        store = connect(url, timeout=0.25, connect_timeout=1)
        chain = await Chain(ledger_on(store), store).take(1)
    assert await outcome(chain.redeem()) == UNKNOWN
    with pytest.raises((RedisError, OSError, TimeoutError)):
        await chain.ledger.load()
    await store.aclose()
