"""What is made of replies: lost ones, foreign ones, none; and when we stop asking."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from security.budget import Caps, Hold
from security.calls import Deadlines
from security.errors import Budget, Quota, Standing
from security.ledger import Ledger, new_rid
from security.scripts import Rate
from security.store import CONNECTIONS
from tests.security.ledger_stage import (
    HOME,
    HOUR_US,
    PREFIX,
    Altered,
    Chain,
    Clock,
    Lossy,
    Store,
    ledger_on,
    outcome,
)
from tests.stage import eventually

ADMITTED = ("admitted", "advanced")
OUT = ("store_unavailable", "kept")
UNKNOWN = ("store_unavailable", "unknown")
RATE_KEY = PREFIX + "rate:home"


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
    limits, money = (9, 1, 4, 2), (7, 3, 2, 60, 0, b"epoch", 0, 1)
    return [argv[1].encode(), b"admitted", b"advanced", 1, 6, 5, 0, *limits, *money]


def foreign(_: Sequence[str]) -> list[bytes | int]:
    """The same reply, to somebody else."""
    return good(["turn", "another-rid"])


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


async def test_a_reply_is_read_whole() -> None:
    """What the script told of turn, limits and money is what the verdict says."""
    ledger = ledger_on(Scripted(good), caps=Caps(None, 8))
    verdict = await Chain(ledger, store=None).redeem()
    assert (verdict.number, verdict.last_ms, verdict.born_ms) == (1, 6, 5)
    assert verdict.hold == Hold(micro_usd=7, max_output=3, day=0)
    assert verdict.standing == Standing(Quota(9, 1), Quota(4, 2), Budget(2, 8, 60))


@pytest.mark.parametrize("silence", [RedisConnectionError, OSError, AttributeError])
async def test_silence_is_asked_once_more(silence: type[Exception]) -> None:
    """A broken connection, or one that another call ended, is tried once again, and the chain is
    unknown when that fails too."""
    store = Scripted(silence(), good)
    assert await ask(ledger_on(store)) == ADMITTED
    assert store.asked == 2
    store = Scripted(silence())
    assert await ask(ledger_on(store)) == UNKNOWN
    assert store.asked == 2


async def test_an_error_is_not_asked_again() -> None:
    """An error that Redis answered is final: it says that nothing was written."""
    store = Scripted(ResponseError("OOM"))
    assert await ask(ledger_on(store)) == OUT
    assert store.asked == 1


async def test_a_second_call_needs_a_full_timeout() -> None:
    """What is left of the deadline is too short for one command: we do not ask again."""
    store = Scripted(RedisConnectionError())
    assert await ask(ledger_on(store, deadlines=Deadlines(command=0.25, whole=0.2))) == UNKNOWN
    assert store.asked == 1


async def test_the_whole_has_a_deadline() -> None:
    """A call that no timeout of the library ends is ended by ours."""
    store = Scripted(good)
    store.open.clear()
    ledger = ledger_on(store, deadlines=Deadlines(command=0.05, whole=0.1))
    async with asyncio.timeout(2):
        assert await ask(ledger) == UNKNOWN


async def test_a_crowd_is_no_broken_store() -> None:
    """Who finds every connection taken is overloaded, in time, and the breaker stays closed."""
    store = Scripted(good)
    store.open.clear()
    ledger = ledger_on(store, deadlines=Deadlines(command=2, whole=2.2))
    first = [asyncio.create_task(ask(ledger)) for _ in range(CONNECTIONS)]
    await eventually(lambda: _is(store.asked == CONNECTIONS))
    late = await asyncio.gather(*(ask(ledger) for _ in range(10)))
    assert late == [("overloaded", None)] * 10
    store.open.set()
    assert await asyncio.gather(*first) == [ADMITTED] * CONNECTIONS
    assert await ask(ledger) == ADMITTED
    assert store.asked == CONNECTIONS + 1


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


async def with_a_probe_due() -> tuple[Ledger, Scripted]:
    """A ledger whose breaker has opened, the pause after it over; the store is well again."""
    clock, bad = Clock(), ResponseError("no")
    store = Scripted(bad, bad, bad, good)
    ledger = ledger_on(store, clock=clock)
    for _ in range(3):
        await ask(ledger)
    clock.now += 1.01
    return ledger, store


async def test_a_good_probe_closes_the_breaker() -> None:
    """The probe that is answered lets everybody in again."""
    ledger, _ = await with_a_probe_due()
    assert [await ask(ledger) for _ in range(5)] == [ADMITTED] * 5


async def test_one_probe_at_a_time() -> None:
    """Of many that come when the pause is over, one asks and the others are refused at once."""
    ledger, store = await with_a_probe_due()
    store.open.clear()
    probe = asyncio.create_task(ask(ledger))
    await eventually(lambda: _is(store.asked == 4))
    assert [await ask(ledger) for _ in range(20)] == [OUT] * 20
    store.open.set()
    assert await probe == ADMITTED
    assert await ask(ledger) == ADMITTED


async def test_a_probe_that_is_cancelled_is_the_next_ones() -> None:
    """Whoever leaves before the answer keeps nobody waiting for another pause."""
    ledger, store = await with_a_probe_due()
    store.open.clear()
    probe = asyncio.create_task(ask(ledger))
    await eventually(lambda: _is(store.asked == 4))
    probe.cancel()
    await asyncio.wait([probe])
    store.open.set()
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


HOURLY = Rate(10, HOUR_US)


@pytest.mark.parametrize("number", [0, 1])
async def test_a_lost_reply_is_one_turn_and_one_tick(chain: Chain, number: int) -> None:
    """A call that was carried out, and its repeat by us, are one turn, one tick and one place."""
    await chain.take(number)
    lossy = Lossy(chain.store)
    again = chain.through(ledger_on(lossy, rate=HOURLY))
    await chain.store.flushdb() if number == 0 else await chain.store.delete(RATE_KEY)
    verdict = await again.redeem()
    assert (lossy.lost, verdict.number) == (1, number + 1)
    assert verdict.standing.address.remaining == 9
    assert await chain.store.zcard(f"{PREFIX}inflight:{chain.name}") == number + 1


async def test_without_a_memory_of_rids_the_repeat_is_a_reuse(chain: Chain) -> None:
    """Control: a script that does not know its rid again turns the honest visitor away."""
    await chain.take(1)
    forgetful: Any = Altered(chain.store, "chain.rid == rid", "false")
    again = chain.through(ledger_on(Lossy(forgetful)))
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
