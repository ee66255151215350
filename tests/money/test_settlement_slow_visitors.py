"""Visitors who take nothing while upstream writes: a cut of their answer costs the whole hold.

While nobody reads, upstream fills every buffer between, far past what was seen and the margin.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from completions.turns import OpenTurn, Turns
from patience import Patience
from tests.money.books import total
from tests.money.settlement_stage import PRICES, Till, hold_of, till, with_turns
from tests.protocol_stage import connect
from tests.stage import Upstream, eventually
from tests.upstream import play
from tests.wire import deaf, port_of, raw_turn

MOST = 6000
PIECE = 65536
LONG = play(words=MOST, text="x", gap_ms=1)
FAST = play(words=3000, text="x" * 100)


@asynccontextmanager
async def deaf_till(
    redis_url: str, upstream: Upstream, directory: Path, **more: Any
) -> AsyncIterator[Till]:
    """A server whose only visitor asks for much and takes nothing, for two seconds at most."""
    more |= {"patience": Patience(write=2), "max_output_tokens": MOST}
    async with till(redis_url, upstream, directory, **more) as (shop, visitor):
        with deaf(port_of(visitor.url), raw_turn(visitor, visitor.body(LONG))):
            await eventually(upstream.books)
            yield shop


async def test_a_visitor_who_reads_nothing_pays_the_hold(
    redis_url: str, upstream: Upstream, tmp_path: Path
) -> None:
    """Cut for not reading: upstream wrote far more than was read of it."""
    async with deaf_till(redis_url, upstream, tmp_path) as shop:
        found, bill = await shop.truth()
        (entry,) = await upstream.books()
    assert found.spent == hold_of(entry, MOST) > bill


class TakenForQuick(Turns):
    """Turns that take every visitor for a quick one."""

    def begin_settlement(self, turn: OpenTurn) -> "asyncio.Task[None]":
        """As ever, with one fact withheld."""
        turn.meter.behind = False
        return super().begin_settlement(turn)


async def test_charged_by_what_was_seen_it_would_be_a_loss(
    redis_url: str, upstream: Upstream, tmp_path: Path
) -> None:
    """The control: without a look at how long the visitor took nothing, less than was billed."""
    around = with_turns(TakenForQuick)
    async with deaf_till(redis_url, upstream, tmp_path, around=around) as shop:
        found, books = await shop.closed()
    assert found.spent < total(books, PRICES)


BEHIND: list[bool] = []


class Noting(Turns):
    """Turns that note which visitors were slow."""

    async def _settle(self, turn: OpenTurn) -> None:
        """As ever."""
        BEHIND.append(turn.meter.behind)
        await super()._settle(turn)


async def test_a_slow_visitor_who_reads_to_the_end_pays_the_books(
    redis_url: str, upstream: Upstream, tmp_path: Path
) -> None:
    """Slowness matters to a cut alone; a quick visitor is not even taken for a slow one."""
    BEHIND.clear()
    more: dict[str, Any] = {"max_output_tokens": 3000, "around": with_turns(Noting)}
    async with till(redis_url, upstream, tmp_path, **more) as (shop, visitor):
        await visitor.say(FAST)
        async with connect(port_of(visitor.url), receive_buffer=4096) as client:
            await client.send(raw_turn(visitor, visitor.body(FAST)))
            piece, pieces = b"", 0
            while not piece.endswith(b"0\r\n\r\n"):
                await asyncio.sleep(0.5 if pieces == 0 else 0)  # a pace, not a wait
                piece, pieces = await client.reader.read(PIECE), pieces + 1
        found, bill = await shop.truth()
    assert found.spent == bill
    assert BEHIND == [False, True]
