"""A worker's clock jumps by an hour: visitors are told the time, and nothing else goes wrong.

The clock of limits, money and one-time tokens is Redis's. The worker is a real process before which
libfaketime moves the wall clock, while it runs; everything else keeps the right time.
"""

import os
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.command_stage import server_py
from tests.faults.figures import JUMPED, RETURNED, Figures
from tests.faults.money_stage import PRICES
from tests.faults.test_drain import environment
from tests.money.books import total
from tests.money.settlement_stage import money
from tests.stage import Upstream, Visitor, now_ms, visiting

FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
CHATS = 20
HOUR = 3600
needs_faketime = pytest.mark.skipif(
    FAKETIME is None and os.environ.get("CI") != "true",
    reason="libfaketime is needed: apt-get install faketime",
)


@dataclass
class Scene:
    """A worker whose clock can be set, and visitors in the middle of a chat."""

    clock: Path
    visitors: list[Visitor]
    spent: list[str | None]
    upstream: Upstream

    def jump(self, seconds: int) -> None:
        """Set the worker's clock so much ahead of the right time."""
        self.clock.write_text(f"{seconds:+}")

    async def posts(self) -> int:
        """How often upstream was asked."""
        return len(await self.upstream.books())


@asynccontextmanager
async def chatting(redis_url: str, upstream: Upstream, home: Path) -> AsyncIterator[Scene]:
    """Twenty visitors, each with a spent token and a good one that are good for a day."""
    clock = home / "clock"
    clock.write_text("+0")
    said = {
        "LD_PRELOAD": str(FAKETIME),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "TOKEN_TTL": "86400",
        "REUSE_GRACE": "600",  # a token that is shown again does not end its chat
    }
    with server_py(home / "kt", **environment(redis_url, upstream.url, **said)) as running:
        async with AsyncExitStack() as stack:
            visitors, spent = [], []
            for _ in range(CHATS):
                visitor = await stack.enter_async_context(visiting(running.url))
                assert (await visitor.say()).status == 200
                spent.append(visitor.token)
                assert (await visitor.say()).status == 200
                visitors.append(visitor)
            yield Scene(clock, visitors, spent, upstream)


@needs_faketime
@pytest.mark.parametrize("hours", [1, -1], ids=["ahead", "behind"])
async def test_a_worker_whose_clock_is_an_hour_off(
    redis_url: str, upstream: Upstream, tmp_path: Path, figures: Figures, hours: int
) -> None:
    """By the right time nobody gets in, and is told the worker's; by the worker's time no spent
    token is honoured; when the clock is right again every chat goes on, and money is right."""
    async with chatting(redis_url, upstream, tmp_path) as scene:
        before = await scene.posts()
        scene.jump(hours * HOUR)
        for visitor in scene.visitors:
            answer = await visitor.say()
            assert (answer.status, answer.code) == (401, "timestamp_stale")
            assert answer.json["chain"] == "kept"
            off = answer.json["server_time_ms"] - now_ms()
            assert abs(off - hours * HOUR * 1000) < 60_000
        assert await scene.posts() == before

        told = Counter([await replay(scene, number, hours) for number in range(CHATS)])
        print(f"{hours:+} h: {dict(told)}")
        figures.note(JUMPED, told[None], of=CHATS)
        if hours > 0:  # their age was no reason: Redis alone refused them
            figures.note(JUMPED, told["token_reused"], of=CHATS, control=True)
            assert told == {"token_reused": CHATS}
        assert await scene.posts() == before

        scene.jump(0)
        went_on = [(await visitor.say()).status for visitor in scene.visitors].count(200)
        figures.note(RETURNED, went_on, of=CHATS)
        assert went_on == CHATS
        found, books = money(redis_url), await upstream.books()
        assert (found.spent, found.held) == (total(books, PRICES), 0)
        assert len(books) == before + CHATS


async def replay(scene: Scene, number: int, hours: int) -> str | None:
    """What whoever shows a spent token by the worker's own time is told; None: admitted."""
    visitor = scene.visitors[number]
    there = str(now_ms() + hours * HOUR * 1000)
    headers = visitor.headers(
        Keyturn_Timestamp=there, Authorization=f"Bearer {scene.spent[number]}"
    )
    return (await visitor.post(visitor.body(), headers)).code


@needs_faketime
async def test_money_and_day_are_those_of_redis(
    redis_url: str, upstream: Upstream, tmp_path: Path
) -> None:
    """A visitor who corrects their clock chats on, at the same day's cost: no second budget."""
    async with chatting(redis_url, upstream, tmp_path) as scene:
        for days in (1, -1):
            scene.jump(days * 24 * HOUR)
            visitor = scene.visitors[0]
            visitor.token = None
            there = {"Keyturn_Timestamp": str(now_ms() + days * 24 * HOUR * 1000)}
            assert (await visitor.say(headers=there)).status == 200
        found, books = money(redis_url), await upstream.books()
        assert (found.spent, found.held) == (total(books, PRICES), 0)
        assert len(found.by_visitor) == 1, "one visitor, one day"
