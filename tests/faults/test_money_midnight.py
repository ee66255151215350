"""Midnight in the middle of an answer: it is charged to the day that it was held on.

Every script reads a clock that the test shows.
"""

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import redis.asyncio

from house import Keyturn
from tests.faults.money_stage import BILL, billed, in_the_middle, is_whole, put_script, take
from tests.stage import Answer, Server, Upstream, Visitor, at_rest, eventually, serving, visiting
from tests.stage import settings_with as settings

A_DAY = 86_400
TODAY = 30_000  # days since 1970
MIDNIGHT = (TODAY + 1) * A_DAY
LIMIT = 500_000  # µUSD of a visitor and day
OPEN_BILL = 228


@dataclass
class Scene:
    """A server at two seconds before midnight."""

    server: Server
    visitor: Visitor
    store: "redis.asyncio.Redis"

    async def show(self, seconds: int) -> None:
        """Set the clock of all scripts."""
        await self.store.hset("clock", mapping={"s": seconds, "us": 0})

    async def money(self, day: int) -> tuple[int, int]:
        """What was spent on a day, and what is held."""
        found = await self.store.hmget(f"keyturn:{{main}}:spend:{day}", ["spent", "held"])
        spent, held = (int(each or 0) for each in found)
        return spent, held


def told(answer: Answer) -> tuple[int, int, int]:
    """What an answer says of the visitor's budget: remaining, limit, reset."""
    found = re.fullmatch(
        r"remaining=(\d+), limit=(\d+), reset=(\d+)", answer.headers["Keyturn-Budget"]
    )
    assert found
    return int(found[1]), int(found[2]), int(found[3])


def with_clock(keyturn: Keyturn, *, by_day_of_settlement: bool = False) -> Keyturn:
    """The same worker, whose scripts read the test's clock."""
    ledger = keyturn.ledger
    for name in ("admit", "settle", "restore"):
        text = getattr(ledger, f"_{name}").script
        text = text.replace("redis.call('TIME')", "redis.call('HMGET', 'clock', 's', 'us')")
        if by_day_of_settlement:
            good = "spend_keys(hold[2], hold[3], hold[4])"
            assert good in text or name == "restore"
            clock = "redis.call('HGET', 'clock', 's')"
            text = text.replace(
                good, f"spend_keys(whole(math.floor({clock} / 86400)), hold[3], hold[4])"
            )
        put_script(keyturn, name, text)
    return keyturn


@asynccontextmanager
async def opened(
    redis_url: str, upstream: Upstream, around: Callable[[Keyturn], Keyturn]
) -> AsyncIterator[Scene]:
    """A server by the test's clock."""
    chosen = settings(redis_url=redis_url, openai_base_url=upstream.url)
    async with (
        redis.asyncio.Redis.from_url(redis_url) as store,
        serving(chosen, around=around) as server,
        visiting(server) as visitor,
    ):
        scene = Scene(server, visitor, store)
        await scene.show(MIDNIGHT - 2)
        yield scene


async def over_midnight(scene: Scene) -> tuple[Answer, Answer]:
    """A turn before, one that begins before and ends after, and one after."""
    first = await take(scene.visitor)
    async with in_the_middle(scene.visitor, 1) as answers:
        _, held = await scene.money(TODAY)
        await scene.show(MIDNIGHT + 1)
        second = await take(scene.visitor)
        assert not answers[0].done()
        assert (await scene.money(TODAY))[1] == held > 0, "it is held where it was taken from"
    assert is_whole(answers[0].result())
    await eventually(lambda: at_rest(scene.server))
    return first, second


async def test_a_turn_is_charged_to_the_day_it_was_held_on(
    redis_url: str, upstream: Upstream
) -> None:
    """The new day begins at nothing, with a turn of its own, and says when it ends."""
    async with opened(redis_url, upstream, with_clock) as scene:
        first, second = await over_midnight(scene)
        assert await scene.money(TODAY) == (BILL + OPEN_BILL, 0)
        assert await scene.money(TODAY + 1) == (BILL, 0)
        assert await billed(upstream) == 2 * BILL + OPEN_BILL
        third = await take(scene.visitor)
        assert await scene.money(TODAY + 1) == (2 * BILL, 0)
    (left, limit, reset), (left_after, _, reset_after) = told(first), told(second)
    assert (limit, reset, reset_after) == (LIMIT, 2, A_DAY - 1)
    assert left == left_after > LIMIT - 2 * BILL, "both days' first turns leave the same"
    assert told(third)[0] == left_after - BILL


async def test_a_spent_day_lets_visitors_in_again_after_midnight(
    redis_url: str, upstream: Upstream
) -> None:
    """Whoever is refused for the day's money is told when it ends, and is admitted then."""
    async with opened(redis_url, upstream, with_clock) as scene:
        await scene.store.hset("keyturn:{main}:control", "cap", BILL * 2)
        assert (await take(scene.visitor)).status == 200
        refused = await take(scene.visitor)
        assert (refused.code, refused.headers["Retry-After"]) == ("budget_exhausted", "2")
        await scene.show(MIDNIGHT)
        assert (await take(scene.visitor)).status == 200
        assert await scene.money(TODAY) == await scene.money(TODAY + 1) == (BILL, 0)


async def test_charged_by_the_clock_the_new_day_pays_for_the_old(
    redis_url: str, upstream: Upstream
) -> None:
    """The control: charged to the day on which it ends, the hold is never given back."""
    async with opened(redis_url, upstream, careless) as scene:
        await over_midnight(scene)
        (spent, held), (spent_after, held_after) = [
            await scene.money(day) for day in (TODAY, TODAY + 1)
        ]
    assert (spent, spent_after) == (BILL, BILL + OPEN_BILL)
    assert held > 0 == held_after


def careless(keyturn: Keyturn) -> Keyturn:
    """The same worker, whose settlements go to the day of the clock."""
    return with_clock(keyturn, by_day_of_settlement=True)
