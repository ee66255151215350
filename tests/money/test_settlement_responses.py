"""Turns by the Responses API against upstream's own books, to the µUSD, however they end.

The rule is that of chats: the ledger never has less than upstream bills; where the final usage
came it has exactly that; nothing stays held.
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from patience import DEFAULT, Patience
from tests.completions.responses_stream import (
    CALL,
    FAILED,
    FLAT,
    NESTED,
    ZERO,
    delta,
    ended,
    event,
)
from tests.money.budget_stage import told, usd
from tests.money.settlement_stage import (
    MAX_OUTPUT,
    Till,
    code_of,
    cost_of,
    hold_of,
    leave,
    money,
    priced_settings,
    require_settled,
    seen_of,
    till,
)
from tests.money.test_settlement import DEAR, REFUSALS, Row, as_whole, expected
from tests.stage import RESPONSES, Upstream, Visitor, at_rest, eventually, serving, visiting
from tests.upstream import play
from tests.wire import ByHand, asking


@asynccontextmanager
async def by_responses(
    redis_url: str, upstream: Upstream, directory: Path, **said: Any
) -> AsyncIterator[tuple[Till, Visitor]]:
    """A server with the prices of these tests, and a visitor who chats by this API."""
    async with till(redis_url, upstream, directory, **said) as (shop, visitor):
        visitor.path = RESPONSES
        yield shop, visitor


def says(prompt: Any, output: Any, **more: Any) -> dict[str, Any]:
    """A usage that upstream claims."""
    return {"input_tokens": prompt, "output_tokens": output, **more}


def raw(*events: bytes) -> dict[str, Any]:
    """A stream of just these events."""
    return {"raw": [each.decode() for each in events]}


DOWN = "upstream_unavailable"
ALL = {"prompt": 90, "cached": 61, "words": 17}
WORDS = delta("word "), delta("word ")
HOLDS = [
    Row("an error before a word", "hold", {"error_after": 0}, DOWN),
    Row("failed at once", "hold", raw(FAILED), DOWN),
    Row("nothing", "hold", raw(), DOWN),
    Row("no usage, a thinker", "hold", {**ALL, "usage": False}, model="thinker"),
    Row("no usage and no word", "hold", {"usage": False, "words": 0}),
    Row("an error of a thinker", "hold", {"words": 9, "error_after": 4}, DOWN, model="thinker"),
]
ROWS = [
    Row("all of it", "books", ALL),
    Row("hidden thoughts", "books", {**ALL, "reasoning": 43}, model="thinker"),
    Row("up to the limit: incomplete", "books", {"words": 900}),
    Row("nothing at all: zero", "books", {"words": 0, "prompt": 0}),
    Row("more than was held", "books", DEAR, over=True),
    Row("output told by the total only", (90, 0, 17), {"usage": says(90, 0, total_tokens=107)}),
    Row("no usage", "seen", {**ALL, "usage": False}),
    Row("a usage that is none", "seen", {**ALL, "usage": says("90", "17")}),
    Row("no end", "seen", {**ALL, "finish": False}, DOWN),
    Row("an error after words", "seen", {"words": 9, "error_after": 4}, DOWN),
    Row("a reset after words", "seen", {"words": 9, "reset_after": 4, "gap_ms": 20}, DOWN),
    Row("a flat error", "seen", raw(*WORDS, FLAT, ended(usage=ZERO)), DOWN),
    Row("failed after words", "seen", raw(*WORDS, FAILED), DOWN),
    Row("garbage after words", "seen", raw(*WORDS, b"data: {oops\n\n"), DOWN),
    Row("half of the end", "seen", raw(*WORDS, ended()[:-9]), DOWN),
    Row("the end, and an error behind it", (9, 4, 3), raw(*WORDS, ended(), NESTED)),
    Row("a usage before the end", "seen", raw(*WORDS, event("x", response={"usage": ZERO})), DOWN),
    *HOLDS,
    *REFUSALS[1::4],
]
WHOLE = [
    Row("an empty object", "hold", {"body": {}}),
    Row("failed, with 200", "hold", {"body": {"status": "failed", "error": {"code": "x"}}}, DOWN),
    Row("an answer of usage alone", (7, 0, 3), {"body": {"usage": says(7, 3)}}),
]
EACH = [*ROWS, *map(as_whole, [*ROWS[:8:2], *HOLDS[3:5], REFUSALS[0], *WHOLE])]


@pytest.mark.parametrize(
    "row", EACH, ids=lambda row: f"{'stream' if row.stream else 'whole'}: {row.name}"
)
async def test_the_ledger_has_what_the_table_says(
    row: Row, redis_url: str, upstream: Upstream, tmp_path: Path
) -> None:
    """One turn, however upstream ends it."""
    async with by_responses(redis_url, upstream, tmp_path) as (shop, visitor):
        answer = await visitor.say(play(**row.script), stream=row.stream, model=row.model)
        assert code_of(answer) == row.code, answer.body
        found, bill = await shop.truth()
        (entry,) = await upstream.books()
    assert found.spent == expected(row, entry, bill, answer)
    assert (found.over, found.past) == (int(row.over), 0)
    assert (found.spent > hold_of(entry)) is row.over


async def test_a_day_of_both_apis_adds_up(
    redis_url: str, upstream: Upstream, tmp_path: Path
) -> None:
    """Turn about in one chain: the sum of upstream's bills."""
    rows = [row for row in EACH if row.charge == "books"]
    async with till(redis_url, upstream, tmp_path) as (shop, visitor):
        for row in rows:
            for path in ("/v1/chat/completions", RESPONSES):
                visitor.path = path
                said = {"stream": row.stream, "model": row.model}
                assert (await visitor.say(play(**row.script), **said)).status == 200
        found, bill = await shop.truth()
        assert len(await upstream.books()) == 2 * len(rows)
    assert found.spent == bill > MAX_OUTPUT


WAITS = {"words": 30, "hang_after": 4}
WORD = b'"delta": "word "'


@pytest.mark.parametrize(
    ("charge", "script", "at", "times", "model"),
    [
        ("hold", {"words": 30, "hang_after": 0}, b"content_part.added", 1, "plain"),
        (20, WAITS, WORD, 4, "plain"),
        ("hold", {**WAITS, "reasoning": 99}, WORD, 4, "thinker"),
        ("books", {"words": 30, "prompt": 90, "cached": 40}, b"response.completed", 2, "plain"),
        ("books", {"reasoning": 99}, b"response.completed", 2, "thinker"),
    ],
    ids=["before a word", "after words", "a thinker", "at the end", "a thinker at the end"],
)
async def test_who_leaves_pays_for_what_was_seen(
    redis_url: str,
    upstream: Upstream,
    tmp_path: Path,
    charge: Any,
    script: dict[str, Any],
    at: bytes,
    times: int,
    model: str,
) -> None:
    """Upstream is closed, and the turn settled; the next one finds all its budget but that."""
    async with by_responses(redis_url, upstream, tmp_path) as (shop, visitor):
        await leave(visitor, at, play(**script), times=times, model=model)
        found, bill = await shop.truth()
        (entry,) = await upstream.books()
    costs = {"hold": hold_of(entry), "books": bill}
    assert found.spent == (costs.get(charge) or seen_of(entry, "x" * int(charge)))


BY_HAND: list[tuple[str, list[bytes], str | tuple[int, int, int], bytes]] = [
    ("half an event", [delta("word ")[:-9]], "hold", b""),
    ("a word", [delta("word ")], "seen", b'"word "'),
    ("a call", [event("response.output_item.added", item=CALL)], "call", b"call_77"),
    ("half of the end", [delta("word "), ended()[:-9]], "seen", b'"word "'),
    ("the end", [delta("word "), ended()], (9, 4, 3), b"completed"),
]


@pytest.mark.parametrize(
    ("ending", "events", "charge", "until"),
    [
        *(("hang-up", *row[1:]) for row in BY_HAND),
        *((ending, *BY_HAND[1][1:]) for ending in ("end", "silence")),
    ],
    ids=[*(row[0] for row in BY_HAND), "upstream ends", "silence"],
)
async def test_a_turn_that_ends_there_costs_this(
    redis_url: str,
    hand: ByHand,
    tmp_path: Path,
    events: list[bytes],
    charge: Any,
    until: bytes,
    ending: str,
) -> None:
    """Whoever ends it: the visitor, upstream before its time, or our patience."""
    patience = Patience(silence=0.3) if ending == "silence" else DEFAULT
    settings = priced_settings(redis_url, hand.url, tmp_path)
    async with serving(settings, patience) as server, visiting(server, path=RESPONSES) as visitor:
        async with asking(visitor) as asked:
            call = await hand.call()
            await call.begin()
            for each in events:
                await call.say(each)
            read = b""
            while until not in read:
                read += await (await asked).content.readany()
            if ending == "end":
                call.close()
            if ending != "hang-up":
                await (await asked).read()
        assert await call.closed(2)
        await eventually(lambda: at_rest(server))
        found = money(redis_url)
    require_settled(found)
    entry = {"body": json.loads(call.body)}
    if isinstance(charge, tuple):
        assert found.spent == cost_of(entry, *charge)
    else:
        costs = {"seen": seen_of(entry, "word "), "call": seen_of(entry, "call_77look")}
        assert found.spent == costs.get(charge, hold_of(entry))


@pytest.mark.parametrize("model", ["plain", "thinker"])
async def test_an_upstream_past_its_limit_is_cut(
    redis_url: str, upstream: Upstream, tmp_path: Path, model: str
) -> None:
    """At the first delta too many: closed, said in an event of its grammar; each is charged."""
    endless = play(words=2 * MAX_OUTPUT, gap_ms=3, ignore_limit=True)
    async with by_responses(redis_url, upstream, tmp_path) as (shop, visitor):
        answer = await visitor.say(endless, model=model)
        found, (entry,) = await shop.closed()
    assert answer.failure == DOWN
    assert answer.events[-1]["sequence_number"] == answer.events[-2]["sequence_number"] + 1
    assert MAX_OUTPUT < answer.body.count(WORD) <= entry["chunks"] < 2 * MAX_OUTPUT
    assert entry["ended"] == "closed"
    assert found.spent > hold_of(entry)
    assert (found.over, found.past) == (1, 1)


@pytest.mark.parametrize("model", ["plain", "unsaid"])
async def test_an_answer_is_shortened_to_what_is_left(
    redis_url: str, upstream: Upstream, tmp_path: Path, model: str
) -> None:
    """In the field of this API, whatever the model's is in chats; the visitor is told."""
    script = {"words": 900}
    async with by_responses(redis_url, upstream, tmp_path) as (shop, visitor):
        await visitor.say(play(**script), model=model)
        (entry,) = await upstream.books()
        await shop.truth()
    assert entry["body"]["max_output_tokens"] == MAX_OUTPUT
    cap = hold_of(entry, 300) + money(redis_url).spent
    async with by_responses(redis_url, upstream, tmp_path, visitor_daily_budget_usd=usd(cap)) as (
        shop,
        visitor,
    ):
        answer = await visitor.say(play(**script), model=model)
        found, bill = await shop.truth()
        entry = (await upstream.books())[-1]
    assert answer.headers["Keyturn-Max-Output"] == str(entry["body"]["max_output_tokens"])
    assert abs(entry["body"]["max_output_tokens"] - 300) <= 1  # each part is rounded up
    assert not {"max_tokens", "max_completion_tokens"} & set(entry["body"])
    assert entry["output_tokens"] == entry["body"]["max_output_tokens"]
    assert answer.events[-1]["type"] == "response.incomplete"
    assert told(answer).limit == cap
    assert found.spent == bill
