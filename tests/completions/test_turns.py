"""The life of a turn: settled once, whatever ends it, and never longer than it may last."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from typing import Any

import anyio
import pytest
from pydantic import SecretStr

from completions.chat import parse_chat
from completions.grammars import ChatScanner
from completions.turns import OpenTurn
from house import Keyturn, open_house
from security.budget import Hold
from security.errors import Rejection
from security.gate import Admission
from security.ledger import new_rid
from security.scripts import Visitor
from tests.stage import PATIENT, commands, eventually, redis_process, settings_with

VISITOR = Visitor("an-address")
OWN_KEY = SecretStr("sk-visitor-0123456789abcdef")
CROWD = 200
BODY = b'{"messages":[{"role":"user","content":"hi"}]}'


@pytest.fixture
async def house(redis_url: str) -> AsyncIterator[Keyturn]:
    """Every part of a worker, with turns of at most one second."""
    async with open_house(settings_with(redis_url=redis_url, max_stream_seconds=1)) as keyturn:
        yield keyturn


@pytest.fixture
async def patient_house(redis_url: str) -> AsyncIterator[Keyturn]:
    """A worker for a crowd, that takes no busy machine for a dead store."""
    async with open_house(settings_with(redis_url=redis_url, **PATIENT)) as keyturn:
        yield keyturn


async def admitted(house: Keyturn) -> Admission[Any]:
    """A turn that holds its places, here and in Redis."""
    request = parse_chat(BODY, house.own_key_policy)
    return await house.gate.admit_own_key(VISITOR, OWN_KEY, request)


async def places(house: Keyturn) -> tuple[int, int]:
    """How many places are taken, here and in Redis."""
    return house.turns._capacity.taken, await house.store.zcard(
        f"keyturn:{{main}}:inflight:{VISITOR.address}"
    )


async def test_a_turn_holds_its_places_until_it_is_settled(house: Keyturn) -> None:
    """One place here and one in Redis, from admission to settlement."""
    turn = house.turns.open(await admitted(house))
    assert await places(house) == (1, 1)
    await turn.settle()
    assert await places(house) == (0, 0)


async def test_a_turn_is_settled_once(house: Keyturn, redis_url: str) -> None:
    """However often and by whomever it is asked for, Redis is told once and one place is freed."""
    other = house.turns.open(await admitted(house))
    turn = house.turns.open(await admitted(house))
    before = commands(redis_url)["evalsha"]
    turn.settle_soon()
    await asyncio.gather(*(turn.settle() for _ in range(50)))
    turn.settle_soon()
    await turn.settle()
    assert commands(redis_url)["evalsha"] == before + 1
    assert await places(house) == (1, 1)
    await other.settle()


async def test_who_is_cancelled_does_not_take_the_settlement_along(house: Keyturn) -> None:
    """A task cancelled while it waits is cancelled, and its turn settled all the same."""
    turn = house.turns.open(await admitted(house))
    task = asyncio.create_task(turn.settle())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await house.turns.settled()
    assert await places(house) == (0, 0)


async def test_who_waits_for_the_settlement_of_another_waits_for_all_of_it(
    house: Keyturn, redis_url: str
) -> None:
    """Asked for by many, Redis is told once; if the first is cancelled, the others still wait."""
    turn = house.turns.open(await admitted(house))
    before = commands(redis_url)["evalsha"]
    await asyncio.gather(*(turn.settle() for _ in range(50)))
    assert commands(redis_url)["evalsha"] == before + 1
    turn = house.turns.open(await admitted(house))
    first, other = (asyncio.create_task(turn.settle()) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await other
    assert first.cancelled()
    assert not house.turns._settling
    assert await places(house) == (0, 0)


async def test_a_worker_s_end_waits_for_a_settlement_in_another_task(house: Keyturn) -> None:
    """Whoever settles and waits for it is waited for, cancelled or not."""
    for cancelled in (False, True):
        turn = house.turns.open(await admitted(house))
        task = asyncio.create_task(turn.settle())
        await asyncio.sleep(0)
        if cancelled:
            task.cancel()
        await house.turns.settled()
        assert house.turns._capacity.taken == 0
        await asyncio.wait([task])
        assert (task.cancelled(), await places(house)) == (cancelled, (0, 0))


async def test_a_plain_finally_loses_what_a_detached_settlement_keeps(
    patient_house: Keyturn,
) -> None:
    """Under a cancel scope, such as Starlette's, `finally: await` loses some; ours loses none."""

    async def plainly(admission: Admission[Any]) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await patient_house.ledger.settle(admission.rid, admission.visitor, chain=None)

    async def ours(admission: Admission[Any]) -> None:
        turn = patient_house.turns.open(admission)
        try:
            await asyncio.Event().wait()
        finally:
            await turn.settle()

    assert await left_by(ours, patient_house) == 0
    assert await left_by(plainly, patient_house) > 0


async def left_by(life: Callable[[Admission[Any]], Awaitable[None]], house: Keyturn) -> int:
    """How many of many lives, all ended at once, leave their place in Redis."""
    admissions = [await admitted(house) for _ in range(CROWD)]
    scopes: list[anyio.CancelScope] = []

    async def live(admission: Admission[Any]) -> None:
        with anyio.CancelScope() as scope:
            scopes.append(scope)
            await life(admission)

    tasks = [asyncio.create_task(live(admission)) for admission in admissions]
    await asyncio.sleep(0)
    assert len(scopes) == CROWD
    for scope in scopes:
        scope.cancel()
    await asyncio.wait(tasks)
    await house.turns.settled()
    return (await places(house))[1]


async def test_the_house_is_closed_after_the_last_settlement(redis_url: str) -> None:
    """Settlements that have begun are over before the connection to Redis is closed."""
    settings = settings_with(redis_url=redis_url)
    async with open_house(settings) as house:
        turns = [house.turns.open(await admitted(house)) for _ in range(20)]
        for turn in turns:
            turn.settle_soon()
        assert house.turns._settling
    async with open_house(settings) as house:
        assert await places(house) == (0, 0)


async def test_a_place_is_freed_when_redis_is_gone(caplog: pytest.LogCaptureFixture) -> None:
    """A settlement that cannot be told is given up in the end, and costs this worker nothing."""
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(redis_process())
        async with open_house(settings_with(redis_url=url)) as house:
            turn = house.turns.open(await admitted(house))
            stack.close()
            await turn.settle()
            assert house.turns._capacity.taken == 0
            await house.turns.settled()
    assert caplog.text.count("settlement failed") == 1


async def test_a_place_is_freed_when_a_charge_cannot_be_told(house: Keyturn) -> None:
    """A fault of ours in counting it is said aloud, and no place of this worker is lost by it."""
    admission = await admitted(house)
    priceless = replace(admission.request, price=None)
    turn = house.turns.open(replace(admission, request=priceless, hold=Hold(1, 1, 1)))
    turn.meter.sent, turn.meter.scanner = True, ChatScanner(keep_usage=False)
    turn.meter.scanner.take_whole({"choices": [{"message": {"content": "a"}}]})
    with pytest.raises(AttributeError):
        await turn.settle()
    assert await places(house) == (0, 1)


async def test_a_settlement_outlives_an_outage() -> None:
    """A turn that ends while Redis is not asked, or does not answer, is settled afterwards."""
    with redis_process() as url:
        settings = settings_with(redis_url=url)
        async with open_house(settings) as house, open_house(settings) as other:
            turns = [house.turns.open(await admitted(house)) for _ in range(10)]
            with stopped(await process_of(house)):
                await asyncio.gather(*(turn.settle() for turn in turns[:5]))
                await asyncio.gather(*(turn.settle() for turn in turns[5:]))
                assert house.turns._capacity.taken == 0
            assert (await places(other))[1] >= 5
            await house.turns.settled()
            assert (await places(other))[1] == 0


async def test_a_crowd_that_leaves_at_once_is_settled_whole(redis_url: str) -> None:
    """Far more turns than connections: each is told once, and no store is taken for a dead one."""
    settings = settings_with(redis_url=redis_url, max_streams=3000, **PATIENT)
    async with open_house(settings) as house:
        turns = [house.turns.open(await admitted(house)) for _ in range(3000)]
        before = commands(redis_url)["evalsha"]
        for turn in turns:
            turn.settle_soon()
        await house.turns.settled()
        assert await places(house) == (0, 0)
        assert commands(redis_url)["evalsha"] == before + len(turns)


async def process_of(house: Keyturn) -> int:
    """The id of the process that Redis is."""
    return int((await house.store.info("server"))["process_id"])


@contextlib.contextmanager
def stopped(process: int) -> Iterator[None]:
    """A process that does nothing for a while."""
    os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process, signal.SIGCONT)


async def test_a_turn_ends_when_its_time_is_up(house: Keyturn) -> None:
    """The deadline is counted from admission, not from when it is waited for."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    turn = house.turns.open(await admitted(house))
    await asyncio.sleep(0.9)
    with pytest.raises(TimeoutError), turn.deadline:
        await asyncio.Event().wait()
    assert 1 <= loop.time() - started < 1.9
    await turn.settle()


async def run_on(turn: OpenTurn, patience: asyncio.Timeout) -> None:
    """A turn that nothing but its deadline ends, before our patience does."""
    async with patience:
        with turn.deadline:
            await asyncio.Event().wait()


async def test_each_of_many_turns_has_its_own_deadline(house: Keyturn) -> None:
    """Who came later ends later, also where others were over long before their time was up."""
    loop = asyncio.get_running_loop()
    quick = house.turns.open(await admitted(house))
    lasted: list[float] = []

    async def last(turn: OpenTurn) -> None:
        began = loop.time()
        with contextlib.suppress(TimeoutError):
            await run_on(turn, asyncio.timeout(5))
        lasted.append(loop.time() - began)
        await turn.settle()

    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(last(house.turns.open(await admitted(house))))
            await asyncio.sleep(0.2)
        await quick.settle()
    assert len(lasted) == 3
    assert all(1 <= each < 1.9 for each in lasted)


async def test_a_turn_that_was_over_before_it_began_ends_at_once(house: Keyturn) -> None:
    """Its time was up while it was not waited for yet."""
    turn = house.turns.open(await admitted(house))
    house.turns.drain(0)
    await asyncio.sleep(0.01)
    with pytest.raises(TimeoutError):
        await run_on(turn, patience := asyncio.timeout(0.5))
    assert not patience.expired()
    await turn.settle()


@pytest.mark.parametrize("expired", [False, True])
async def test_who_cancels_a_turn_is_not_taken_for_its_deadline(
    house: Keyturn, expired: bool
) -> None:
    """Cancelled by somebody else it is cancelled, also where its time is up at that moment."""
    turn = house.turns.open(await admitted(house))
    task = asyncio.create_task(run_on(turn, asyncio.timeout(5)))
    await asyncio.sleep(0)
    task.cancel()
    if expired:
        house.turns.drain(0)
    with pytest.raises(asyncio.CancelledError):
        await task
    await turn.settle()


@pytest.mark.parametrize("opened", ["before", "meanwhile"])
async def test_a_drain_brings_every_deadline_forward(redis_url: str, opened: str) -> None:
    """Turns end in time that were open when it began, and those admitted but not open yet."""
    async with open_house(settings_with(redis_url=redis_url, max_stream_seconds=60)) as house:
        admission = await admitted(house)
        turn = house.turns.open(admission) if opened == "before" else None
        house.turns.drain(0.1)
        turn = turn or house.turns.open(admission)
        with pytest.raises(TimeoutError):
            await run_on(turn, patience := asyncio.timeout(5))
        assert not patience.expired()
        await turn.settle()


async def test_a_drain_reaches_a_turn_that_is_under_way(house: Keyturn) -> None:
    """A running deadline is brought forward, and never put off."""
    turn = house.turns.open(await admitted(house))
    loop = asyncio.get_running_loop()
    started = loop.time()
    loop.call_later(0.05, house.turns.drain, 0.1)
    loop.call_later(0.1, house.turns.drain, 60)
    with pytest.raises(TimeoutError), turn.deadline:
        await asyncio.Event().wait()
    assert loop.time() - started < 0.6
    house.turns.drain(0.1)  # after the scope was left
    await turn.settle()


async def test_a_draining_worker_admits_nobody(house: Keyturn) -> None:
    """New turns are `overloaded`, and nothing is written of them in Redis."""
    before = set(await house.store.keys())
    house.turns.drain(1)
    assert house.turns.draining
    with pytest.raises(Rejection, match="overloaded"):
        await admitted(house)
    assert await places(house) == (0, 0)
    assert set(await house.store.keys()) <= before


async def test_a_repeated_settlement_of_another_turn_changes_nothing(house: Keyturn) -> None:
    """Settling what was never admitted takes nobody's place away."""
    turn = house.turns.open(await admitted(house))
    await house.ledger.settle(new_rid(), VISITOR, chain=None)
    assert await places(house) == (1, 1)
    await turn.settle()

    async def free() -> bool:
        return await places(house) == (0, 0)

    await eventually(free)


async def test_a_last_call_is_for_those_who_came_through_the_door(house: Keyturn) -> None:
    """From the signal on it is not ready; who was let in before the door closed is admitted."""
    house.turns.drain(5, last_call=0.2)
    assert house.turns.draining
    turn = house.turns.open(await admitted(house))
    await turn.settle()
    await asyncio.sleep(0.3)
    with pytest.raises(Rejection, match="overloaded"):
        await admitted(house)
