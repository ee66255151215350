"""Redis forgets money: workers remember it, give it back before they admit, and the cap holds.

Three ways to forget: a flush, an older copy of the data after SIGKILL, and a failover to a replica
whose link was cut. What upstream bills is counted from its own books.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio as redis

from house import Keyturn
from tests.faults.figures import OVER_CAP, Figures
from tests.faults.log import Log
from tests.faults.money_stage import (
    BILL,
    BUDGET,
    CAP,
    LOSSES,
    SLOWLY,
    Loss,
    Redises,
    billed,
    flush,
    in_the_middle,
    is_admitted,
    is_whole,
    put_script,
    redises,
    rush,
    spend,
    take,
)
from tests.stage import (
    Answer,
    Server,
    Upstream,
    Visitor,
    at_rest,
    eventually,
    serving,
    settings_with,
    visiting,
)

HEALED = 2.0  # seconds until a store that answers again is used
GIVEN_BACK = "the store lost money that it had acknowledged"
Around = Callable[[Keyturn], Keyturn]


@dataclass
class Scene:
    """One worker with a small budget, and its Redis."""

    store: Redises
    server: Server
    visitor: Visitor
    upstream: Upstream


@asynccontextmanager
async def opened(
    directory: Path, upstream: Upstream, around: Around = lambda keyturn: keyturn
) -> AsyncIterator[Scene]:
    """One worker, in this process."""
    async with redises(directory) as store:
        urls = {"redis_url": store.url, "openai_base_url": upstream.url}
        settings = settings_with(**BUDGET, **SLOWLY, **urls)
        async with serving(settings, around=around) as server, visiting(server) as visitor:
            yield Scene(store, server, visitor, upstream)


async def play_through(scene: Scene, loss: Loss) -> tuple[int, int]:
    """Spend some, lose it with turns open, rush at what is left; spent before, and the bill."""
    await spend(scene.visitor, 10)
    await scene.store.mark()
    await spend(scene.visitor, 15)
    async with in_the_middle(scene.visitor, 3) as answers:
        await eventually(lambda: is_spent(scene, 25 * BILL))
        before = scene.store.money()
        await loss.strike(scene.store)
        assert scene.store.money().spent < before.spent
        await eventually(lambda: is_admitted(scene.visitor), HEALED)
        told = await rush(scene.visitor, 60)
        assert set(told) == {None, "budget_exhausted"}
    assert all(is_whole(answer.result()) for answer in answers), "open turns are not disturbed"
    await eventually(lambda: at_rest(scene.server))
    while (await take(scene.visitor)).code is None:
        pass
    await eventually(lambda: at_rest(scene.server))
    return before.spent, await billed(scene.upstream)


async def is_spent(scene: Scene, micro_usd: int) -> bool:
    """Whether Redis counts exactly so much as spent."""
    return scene.store.money().spent == micro_usd


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)
async def test_the_cap_holds_whatever_redis_forgets(
    tmp_path: Path, upstream: Upstream, log: Log, figures: Figures, loss: Loss
) -> None:
    """Given back at the next admission, open turns charged once at their end, to the µUSD."""
    async with opened(tmp_path, upstream) as scene:
        before, bill = await play_through(scene, loss)
        found = scene.store.money()
        print(f"{loss.name}: cap {CAP}, spent before {before}, billed {bill}, spent {found.spent}")
        figures.note(OVER_CAP, max(0, bill - CAP))
        assert (found.spent, found.held) == (bill, 0)
        assert before < bill <= CAP
        assert CAP - bill < 2 * BILL, "no more was kept back than the last turn might have cost"
        assert sum(line.startswith(GIVEN_BACK) for line in log.lines()) == 1
        assert found.over == found.past == 0


def forgetful(keyturn: Keyturn) -> Keyturn:
    """The same worker with scripts that never name the count they found: it remembers nothing."""
    ledger, told = keyturn.ledger, "return total[1] or '',"
    for name in ("admit", "settle"):
        text = getattr(ledger, f"_{name}").script
        assert told in text
        put_script(keyturn, name, text.replace(told, "return '',"))
    ledger._seen.clear()
    return keyturn


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)
async def test_without_memory_the_cap_is_overshot(
    tmp_path: Path, upstream: Upstream, figures: Figures, loss: Loss
) -> None:
    """The control: the same run with scripts that do not compare what the worker saw."""
    async with opened(tmp_path, upstream, forgetful) as scene:
        before, bill = await play_through(scene, loss)
        print(f"{loss.name}, control: cap {CAP}, spent before {before}, billed {bill}")
        figures.note(OVER_CAP, bill - CAP, control=True)
        assert bill > CAP + BILL


async def test_nobody_is_admitted_before_it_is_given_back(
    tmp_path: Path, upstream: Upstream
) -> None:
    """While giving back fails all are refused; what was seen is not forgotten by that."""
    async with opened(tmp_path, upstream) as scene:
        await spend(scene.visitor, 10)
        keyturn = scene.server.keyturn
        good = keyturn.ledger._restore
        put_script(keyturn, "restore", "return redis.error_reply('no')")
        await flush(scene.store)
        assert set(await rush(scene.visitor, 20)) == {"store_unavailable"}
        assert scene.store.money().spent == 0
        assert await billed(upstream) == 10 * BILL
        keyturn.ledger._restore = good
        await eventually(lambda: is_admitted(scene.visitor))
        assert scene.store.money().spent == await billed(upstream) == 11 * BILL


async def test_a_crowd_during_flush_after_flush(tmp_path: Path, upstream: Upstream) -> None:
    """Whatever was on its way at that moment, nothing that upstream bills is missing in the end."""
    async with opened(tmp_path, upstream) as scene:
        crowd = asyncio.create_task(rush(scene.visitor, 150, at_once=40))
        flushed = 0
        while not crowd.done():
            await asyncio.sleep(0.05)
            await flush(scene.store)
            flushed += 1
        await eventually(lambda: at_rest(scene.server))
        await take(scene.visitor)
        await eventually(lambda: at_rest(scene.server))
        found, bill = scene.store.money(), await billed(upstream)
    print(f"{flushed} flushes: cap {CAP}, billed {bill}, spent {found.spent}, held {found.held}")
    assert flushed > 3
    assert bill <= CAP
    assert bill <= found.spent + found.held


def by_many_connections(keyturn: Keyturn) -> Keyturn:
    """The same ledger, but each call has a connection of its own, as by Sentinel and Cluster."""
    ledger = keyturn.ledger
    for name in ("admit", "settle", "restore"):
        own = getattr(ledger, f"_{name}")
        script: Any = redis.Redis.register_script(keyturn.store, own.script)
        ledger._calls._names[script] = name
        setattr(ledger, f"_{name}", script)
    return keyturn


async def forgotten_unheard(scene: Scene) -> asyncio.Task[Answer]:
    """A turn that Redis admits and forgets before the reply is heard, and another one after it."""
    await spend(scene.visitor, 1)
    scene.store.way.late = 0.5
    late = asyncio.create_task(take(scene.visitor))
    await eventually(lambda: is_held(scene))
    await flush(scene.store)
    await spend(scene.visitor, 1)
    return late


async def test_a_turn_whose_admission_was_lost_before_it_was_heard(
    tmp_path: Path, upstream: Upstream
) -> None:
    """Redis admits it, forgets it, and is given back what this worker knows by then: it is refused,
    and nothing is asked of upstream that nothing is held for."""
    async with opened(tmp_path, upstream, by_many_connections) as scene:
        late = await forgotten_unheard(scene)
        assert not late.done(), "the control: the other was admitted meanwhile"
        assert (await late).code == "store_unavailable"
        await eventually(lambda: at_rest(scene.server))
        found, bill = scene.store.money(), await billed(upstream)
    assert (found.spent, found.held) == (bill, 0) == (2 * BILL, 0)


async def test_on_one_connection_what_was_lost_is_heard_before_it_is_given_back(
    tmp_path: Path, upstream: Upstream
) -> None:
    """The reply to the later call, that all was forgotten, comes behind the late admission's: its
    hold is known by then, and given back with all else."""
    async with opened(tmp_path, upstream) as scene:
        late = await forgotten_unheard(scene)
        assert (await late).status == 200
        await eventually(lambda: at_rest(scene.server))
        found, bill = scene.store.money(), await billed(upstream)
    assert (found.spent, found.held) == (bill, 0) == (3 * BILL, 0)


async def is_held(scene: Scene) -> bool:
    """Whether something is held."""
    return scene.store.money().held > 0
