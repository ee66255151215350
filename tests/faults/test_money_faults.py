"""Redis is broken while turns are settled: each is charged once, never below what upstream bills.

The store is a real Redis, broken between a turn's admission and its end and healed after it.
"""

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from house import Keyturn
from tests.faults.log import Log
from tests.faults.money_stage import (
    BILL,
    BUDGET,
    CAP,
    begin,
    billed,
    end_leases,
    in_the_middle,
    is_admitted,
    is_whole,
    put_script,
    spend,
    take,
)
from tests.faults.store_stage import FAULTS, Fault, OwnRedis, Wire, wired
from tests.money.settlement_stage import Money, money
from tests.stage import (
    Server,
    Upstream,
    Visitor,
    at_rest,
    eventually,
    serving,
    settings_with,
    visiting,
)

RETRIES = 8.0  # seconds within which a settlement is tried again
OPEN_BILL = 228  # µUSD of the turn that is open while Redis is broken
Around = Callable[[Keyturn], Keyturn]


@dataclass
class Scene:
    """A server whose store can be broken, and what it knows of money."""

    store: OwnRedis
    wire: Wire
    server: Server
    visitor: Visitor
    upstream: Upstream

    @property
    def money(self) -> Money:
        """As Redis has it."""
        return money(f"unix://{self.store.socket}")

    async def settled(self) -> None:
        """Wait until no turn is open here, and no settlement is tried any more."""
        turns = self.server.keyturn.turns

        async def is_over() -> bool:
            return not (turns._open or turns._settling)

        await eventually(is_over, RETRIES)


@asynccontextmanager
async def opened(
    directory: Path,
    upstream: Upstream,
    *options: str,
    around: Around = lambda keyturn: keyturn,
    daily: str = BUDGET["daily_budget_usd"],
) -> AsyncIterator[Scene]:
    """A server, and its Redis at the end of a wire."""
    store = OwnRedis(directory)
    store.start(*options)
    try:
        store.ready()
        async with wired(store.socket, directory) as (wire, url):
            urls = {"redis_url": url, "openai_base_url": upstream.url}
            settings = settings_with(**{**BUDGET, **urls, "daily_budget_usd": daily})
            async with serving(settings, around=around) as server, visiting(server) as visitor:
                yield Scene(store, wire, server, visitor, upstream)
    finally:
        store.kill()


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
async def test_a_turn_that_ends_on_a_broken_store(
    tmp_path: Path, upstream: Upstream, fault: Fault
) -> None:
    """Its answer is whole; soon after the store healed it is charged, once and to the µUSD."""
    async with opened(tmp_path, upstream) as scene:
        await spend(scene.visitor, 2)
        async with in_the_middle(scene.visitor, 1) as answers:
            fault.strike(scene.store, scene.wire)
            await asyncio.wait(answers)
            assert is_whole(answers[0].result())
        if fault.name == "full":
            assert scene.money.held == 0, "what gives money back needs no memory"
        fault.heal(scene.store, scene.wire)
        await scene.settled()
        found, bill = scene.money, await billed(upstream)
        assert (found.spent, found.held, found.holds) == (bill, 0, ())
        assert bill == 2 * BILL + OPEN_BILL
        await eventually(lambda: is_admitted(scene.visitor))


@pytest.mark.parametrize("lost", [1, 2, 4])
@pytest.mark.parametrize("cut", [False, True], ids=["silence", "cut"])
async def test_a_settlement_whose_reply_is_lost(
    tmp_path: Path, upstream: Upstream, lost: int, cut: bool
) -> None:
    """It is said again until it is heard, and counts once."""
    async with opened(tmp_path, upstream) as scene:
        found, bill = await lose_replies(scene, lost, cut=cut)
    assert (found.spent, found.held, found.holds) == (bill, 0, ())
    assert bill == BILL + OPEN_BILL


async def lose_replies(scene: Scene, lost: int, *, cut: bool) -> tuple[Money, int]:
    """Lose the replies to a settlement; the money, and what upstream bills."""
    await spend(scene.visitor, 1)
    async with in_the_middle(scene.visitor, 1):
        scene.wire.cut, scene.wire.lose = cut, lost
    await scene.settled()
    assert scene.wire.lose == 0, "no reply was lost"
    return scene.money, await billed(scene.upstream)


async def test_by_a_script_that_keeps_the_hold_it_counts_twice(
    tmp_path: Path, upstream: Upstream
) -> None:
    """The control: a settlement that does not end what it settles is charged with each repeat."""

    def careless(keyturn: Keyturn) -> Keyturn:
        line = "redis.call('DEL', name)\n"
        text = keyturn.ledger._settle.script  # type: ignore[attr-defined]
        assert line in text
        put_script(keyturn, "settle", text.replace(line, ""))
        return keyturn

    async with opened(tmp_path, upstream, around=careless) as scene:
        found, bill = await lose_replies(scene, 1, cut=False)
    assert found.spent == bill + OPEN_BILL
    assert found.holds


async def test_a_turn_that_is_never_settled_counts_in_full(
    tmp_path: Path, upstream: Upstream, log: Log
) -> None:
    """Redis is away until nobody tries any more: the hold stays until its lease ends, and then
    the next admission counts all of it; nothing is refused for it any longer."""
    options = "--appendonly", "yes", "--appendfsync", "always"
    async with opened(tmp_path, upstream, *options) as scene:
        await spend(scene.visitor, 2)
        async with in_the_middle(scene.visitor, 1):
            held = scene.money.held
            scene.store.kill()
        await scene.settled()
        assert sum(line.startswith("settlement failed") for line in log.lines()) == 1
        scene.store.start(*options)
        scene.store.ready()
        await eventually(lambda: is_admitted(scene.visitor))
        found, bill = scene.money, await billed(upstream)
        assert (found.spent, found.held) == (3 * BILL, held)
        assert bill == 3 * BILL + OPEN_BILL > found.spent, "the control: it was not charged"
        end_leases(scene.store)
        assert await is_admitted(scene.visitor)
        found, bill = scene.money, await billed(upstream)
        assert (found.spent, found.held) == (4 * BILL + held, 0)
        assert found.spent > bill
        assert await left_over(scene) < 2 * BILL


async def left_over(scene: Scene) -> int:
    """What of the cap nobody can spend."""
    while (await take(scene.visitor)).code != "budget_exhausted":
        pass
    found = scene.money
    assert found.held == 0
    return CAP - found.spent


async def hang_up(scene: Scene, visitors: int, seconds: float) -> tuple[Money, int]:
    """So many leave at once while Redis is stopped for a while; the money in the end, the bill."""
    begun = [begin(scene.visitor, words=250, gap_ms=40) for _ in range(visitors)]
    answers = await asyncio.gather(*begun)
    scene.store.signal(signal.SIGSTOP)
    for answer in answers:
        answer.close()
    await asyncio.sleep(seconds)
    scene.store.signal(signal.SIGCONT)
    await scene.settled()
    return scene.money, await billed(scene.upstream)


@pytest.mark.parametrize("seconds", [1, 3.5])
async def test_a_hundred_hang_ups_on_a_stopped_store(
    tmp_path: Path, upstream: Upstream, seconds: float
) -> None:
    """All are settled once it goes on, each once, by at least what upstream wrote; also when only
    the last try can meet it."""
    charges: dict[str, int] = {}

    def noting(keyturn: Keyturn) -> Keyturn:
        settle = keyturn.ledger.settle

        async def note(rid: str, *said: Any, **more: Any) -> None:
            charges[rid] = more.get("charge", 0)
            await settle(rid, *said, **more)

        keyturn.ledger.settle = note  # type: ignore[method-assign]
        return keyturn

    async with opened(tmp_path, upstream, around=noting, daily="1") as scene:
        found, bill = await hang_up(scene, 100, seconds)
        await eventually(lambda: at_rest(scene.server))
    print(f"100 hang-ups, {seconds} s: billed {bill}, spent {found.spent}")
    assert found.held == 0
    assert 100 * 100 < bill <= found.spent == sum(charges.values())
    assert sum(charge > 0 for charge in charges.values()) == 100
    assert {entry["ended"] for entry in await upstream.books()} == {"closed"}


async def test_without_another_try_they_stay_held(tmp_path: Path, upstream: Upstream) -> None:
    """The control: settling that is tried once leaves money held that nobody spends."""

    def resigned(keyturn: Keyturn) -> Keyturn:
        async def give_up(rid: str, tell: Callable[[], Awaitable[None]]) -> None:
            keyturn.ledger.give_up(rid)

        keyturn.turns._tell_later = give_up  # type: ignore[method-assign]
        return keyturn

    async with opened(tmp_path, upstream, around=resigned, daily="1") as scene:
        await hang_up(scene, 40, 1)
        await eventually(lambda: is_admitted(scene.visitor))
        assert scene.money.held > 0
