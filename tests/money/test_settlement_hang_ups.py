"""Visitors who leave: the ledger never has less than upstream bills, and never more than the hold.

Where upstream waits, what was seen is known exactly; where it goes on, the margin covers what it
wrote and nobody read.
"""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from security.ledger import Ledger, new_rid
from security.scripts import Visitor
from tests.money.settlement_stage import (
    hold_of,
    leave,
    money,
    require_settled,
    seen_of,
    till,
    with_turns,
)
from tests.stage import Upstream, eventually
from tests.upstream import play
from tests.wire import asking, port_of, raw_turn

WORD = b'"word "'
WAITS = {"words": 30, "hang_after": 4}


@dataclass(frozen=True)
class Row:
    """When the visitor leaves, and what it costs: the hold, the books, or so many words seen."""

    name: str
    charge: str | int
    script: dict[str, Any]
    at: bytes
    times: int = 1
    model: str = "plain"


ROWS = [
    Row("before the first word", "hold", {"words": 30, "hang_after": 0}, b'"assistant"'),
    Row("after one word", 1, {"words": 30, "hang_after": 1}, WORD),
    Row("after four words", 4, WAITS, WORD, 4),
    Row("after words of many tokens", 4, {**WAITS, "tokens_per_word": 5}, WORD, 4),
    Row("after as much as was allowed", "hold", {
        "words": 90, "hang_after": 80, "text": "twenty bytes of text"}, b'"twenty', 80),
    Row("a thinker, after words", "hold", {**WAITS, "reasoning": 99}, WORD, 4, "thinker"),
    Row("an unsaid one, after words", "hold", {**WAITS, "reasoning": 99}, WORD, 4, "unsaid"),
    Row("a thinker, before a word", "hold", {
        "words": 30, "hang_after": 0, "reasoning": 99}, b'"assistant"', 1, "thinker"),
    Row("at [DONE]", "books", {"words": 30, "prompt": 90, "cached": 40}, b"[DONE]"),
    Row("a thinker, at [DONE]", "books", {"reasoning": 99}, b"[DONE]", 1, "thinker"),
]  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
async def test_a_hang_up_is_charged_by_what_was_seen(
    row: Row, redis_url: str, upstream: Upstream, tmp_path: Path
) -> None:
    """Upstream waits where the visitor leaves, so the charge is known to the µUSD."""
    async with till(redis_url, upstream, tmp_path) as (shop, visitor):
        await leave(visitor, row.at, play(**row.script), times=row.times, model=row.model)
        found, bill = await shop.truth()
        (entry,) = await upstream.books()
    if isinstance(row.charge, int):
        assert found.spent == seen_of(entry, "word " * row.charge)
    else:
        assert found.spent == {"hold": hold_of(entry), "books": bill}[row.charge]
    assert (found.over, found.past) == (0, 0)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("script", [{"silent": True}, {"hold_ms": 5000}])
async def test_who_leaves_before_upstream_answers_pays_the_hold(
    redis_url: str, upstream: Upstream, tmp_path: Path, script: dict[str, Any], stream: bool
) -> None:
    """It was asked, and may have worked for as long as it was allowed to."""
    async with till(redis_url, upstream, tmp_path) as (shop, visitor):
        async with asking(visitor, content=play(**script), stream=stream):
            await eventually(upstream.books)
            open_hold = money(redis_url)
            assert (open_hold.spent, len(open_hold.holds)) == (0, 2)
        found, _ = await shop.truth()
        (entry,) = await upstream.books()
    assert entry["ended"] == "closed"
    assert found.spent == open_hold.held == hold_of(entry)


async def test_who_leaves_inside_the_body_has_nothing_held(
    redis_url: str, upstream: Upstream, tmp_path: Path
) -> None:
    """Nothing was admitted, so money is not touched."""
    async with till(redis_url, upstream, tmp_path) as (shop, visitor):
        _, writer = await asyncio.open_connection("127.0.0.1", port_of(visitor.url))
        writer.write(raw_turn(visitor)[:-5])
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        assert (await visitor.say()).status == 200
        found, bill = await shop.truth()
        assert len(await upstream.books()) == 1
    assert found.spent == bill


@pytest.mark.parametrize("gap_ms", [1, 8])
async def test_many_who_leave_while_upstream_goes_on(
    redis_url: str, upstream: Upstream, tmp_path: Path, gap_ms: int
) -> None:
    """Twenty visitors, each at another word: in sum and one by one at least what was billed."""
    async with till(redis_url, upstream, tmp_path) as (shop, visitor):
        for times in range(1, 21):
            await leave(visitor, WORD, play(words=350, gap_ms=gap_ms), times=times)
        found, bill = await shop.truth()
        books = await upstream.books()
    assert {entry["ended"] for entry in books} == {"closed"}
    assert 0 < bill <= found.spent <= sum(map(hold_of, books))


class Free:
    """A ledger that lets everybody go who has no bill to show."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def settle(self, rid: str, visitor: Visitor, **said: Any) -> None:
        """Gives the whole hold back."""
        await self._ledger.settle(rid, visitor, **{**said, "charge": 0})


class Silent(Free):
    """A ledger that gives back the places, and forgets the money."""

    async def settle(self, rid: str, visitor: Visitor, **said: Any) -> None:
        """Settles another turn, which was never there."""
        await self._ledger.settle(new_rid(), visitor, **said)


class Twice(Free):
    """A ledger that is told everything twice."""

    async def settle(self, rid: str, visitor: Visitor, **said: Any) -> None:
        """As it is, and again at another price."""
        await self._ledger.settle(rid, visitor, **said)
        await self._ledger.settle(rid, visitor, **{**said, "charge": said["charge"] + 1000})


@pytest.mark.parametrize("row", [ROWS[0], ROWS[2], ROWS[-1]], ids=lambda row: row.name)
async def test_who_settles_for_nothing_has_less_than_upstream_bills(
    redis_url: str, upstream: Upstream, tmp_path: Path, row: Row
) -> None:
    """The control: a hang-up that costs nothing is below the books, whenever it comes."""
    around = with_turns(ledger=Free)
    async with till(redis_url, upstream, tmp_path, around=around) as (shop, visitor):
        await leave(visitor, row.at, play(**row.script), times=row.times)
        with pytest.raises(AssertionError, match="spent=0"):
            await shop.truth()


async def test_who_does_not_settle_keeps_the_money_held(
    redis_url: str, upstream: Upstream, tmp_path: Path
) -> None:
    """The control: a hold that nobody closes is still there, whatever became of the turn."""
    around = with_turns(ledger=Silent)
    async with till(redis_url, upstream, tmp_path, around=around) as (_, visitor):
        assert (await visitor.say()).status == 200
        found = money(redis_url)
        assert found.held > 0 == found.spent
        with pytest.raises(AssertionError):
            require_settled(found)


async def test_who_is_told_twice_counts_once(
    redis_url: str, upstream: Upstream, tmp_path: Path
) -> None:
    """A second settlement changes nothing, at whatever price."""
    around = with_turns(ledger=Twice)
    async with till(redis_url, upstream, tmp_path, around=around) as (shop, visitor):
        await leave(visitor, WORD, play(**WAITS), times=4)
        found, _ = await shop.truth()
        (entry,) = await upstream.books()
    assert found.spent == seen_of(entry, "word " * 4)
