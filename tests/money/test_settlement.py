"""Every end that upstream can give a turn: the ledger against upstream's own books, to the µUSD.

The rule of every row: the ledger never has less than upstream bills; where the final usage came it
has exactly that; nothing stays held; and the day and its visitor are told the same.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from tests.money.settlement_stage import (
    MAX_OUTPUT,
    code_of,
    cost_of,
    hold_of,
    seen_of,
    till,
)
from tests.stage import Answer, Upstream
from tests.upstream import play
from tests.upstream_shapes import chunk

Charge = Literal["books", "hold", "nothing", "seen"] | tuple[int, int, int]


@dataclass(frozen=True)
class Row:
    """How upstream answers, what the visitor is told, and what the turn costs.

    books: what upstream bills, exactly. hold: the worst case. seen: the prompt as held, a token
    for each byte that came, and the margin. Three numbers: prompt, cached and output tokens, as
    usage claims them. `over` says that it is more than was held.
    """

    name: str
    charge: Charge
    script: dict[str, Any] = field(default_factory=dict)
    code: str | None = None
    stream: bool = True
    model: str = "plain"
    over: bool = False


def says(prompt: Any, output: Any, **more: Any) -> dict[str, Any]:
    """A usage that upstream claims."""
    return {"prompt_tokens": prompt, "completion_tokens": output, **more}


def word(usage: Any = None, finish: str | None = None) -> str:
    """A chunk with five bytes of text, and a usage on it."""
    return chunk({"content": "word "}, finish, usage).decode()


ALL = {"prompt": 90, "cached": 61, "words": 17}
THINKING = {**ALL, "reasoning": 43}
DEAR = {"prompt": 5000, "cached": 1}

WITH_USAGE = [
    Row("all of it", "books", ALL),
    Row("nothing cached", "books", {"prompt": 90, "words": 17}),
    Row("all cached", "books", {"prompt": 90, "cached": 90}),
    Row("many tokens a word", "books", {"tokens_per_word": 7, "text": "x"}),
    Row("hidden thoughts", "books", THINKING, model="thinker"),
    Row("thoughts and no word", "books", {"reasoning": 43, "words": 0}, model="thinker"),
    Row("up to the limit", "books", {"words": 900}),
    Row("thoughts up to the limit", "books", {"reasoning": 900}, model="thinker"),
    Row("nothing was written", "books", {"words": 0}),
    Row("nothing at all: zero", "books", {"words": 0, "prompt": 0}),
    Row("more than was held", "books", DEAR, over=True),
    Row(
        "a cache above the prompt",
        (90, 0, 17),
        {**ALL, "usage": {**says(90, 17), "prompt_tokens_details": {"cached_tokens": 91}}},
    ),
    Row(
        "a cache that is no number",
        (90, 0, 17),
        {**ALL, "usage": {**says(90, 17), "prompt_tokens_details": {"cached_tokens": "61"}}},
    ),
    Row(
        "output told by the total only",
        (90, 0, 17),
        {**ALL, "usage": says(90, 0, total_tokens=107)},
    ),
    Row(
        "a prompt told by the total only",
        (0, 0, 107),
        {**ALL, "usage": says(0, 17, total_tokens=107)},
    ),
    Row("a total below its parts", (90, 0, 17), {**ALL, "usage": says(90, 17, total_tokens=3)}),
]

NO_USAGE: list[tuple[str, Any]] = [
    ("missing", False),
    ("a string", "90"),
    ("a list", [says(90, 17)]),
    ("no prompt", {"completion_tokens": 17, "total_tokens": 107}),
    ("no output", {"prompt_tokens": 90, "total_tokens": 107}),
    ("strings", says("90", "17")),
    ("floats", says(90.0, 17.0)),
    ("truth", says(True, True)),
    ("a debt", says(90, -17)),
    ("past any model", says(90, 10**30)),
]

WITHOUT = [
    *(Row(f"usage: {name}", "seen", {**ALL, "usage": usage}) for name, usage in NO_USAGE),
    *(
        Row(f"thinker, usage: {name}", "hold", {**THINKING, "usage": usage}, model="thinker")
        for name, usage in NO_USAGE[:3]
    ),
    Row("unsaid is a thinker", "hold", {**THINKING, "usage": False}, model="unsaid"),
    Row("no usage and no word", "hold", {"usage": False, "words": 0}),
    Row("no usage, as much text as was allowed", "hold", {"usage": False, "words": 900}),
]

REFUSALS = [
    Row(f"refused with {status}", "nothing", {"status": status, "body": body}, code)
    for status, body, code in [
        (302, {}, "upstream_unavailable"),
        (400, {"error": {"code": "context_length_exceeded"}}, "upstream_rejected"),
        (400, {}, "upstream_rejected"),
        (401, {}, "upstream_rejected"),
        (403, {}, "upstream_rejected"),
        (404, {}, "upstream_rejected"),
        (408, {}, "upstream_unavailable"),
        (429, {}, "upstream_rate_limited"),
        (500, {}, "upstream_unavailable"),
        (503, {}, "upstream_unavailable"),
    ]
]

DOWN = "upstream_unavailable"
ODD = [
    Row("201", "hold", {"status": 201, "body": {}}, DOWN),
    Row("compressed", "hold", {"headers": {"Content-Encoding": "gzip"}, "raw": []}, DOWN),
]

STREAMS = [
    Row("no finish_reason", "books", {**ALL, "finish": False}),
    Row("no [DONE]", "books", {**ALL, "done": False}),
    Row("neither: usage was not the end", "seen", {**ALL, "finish": False, "done": False}, DOWN),
    Row("it just ends", "seen", {"finish": False, "done": False, "usage": False}, DOWN),
    Row(
        "it ends before a word",
        "hold",
        {"words": 0, "finish": False, "done": False, "usage": False},
        DOWN,
    ),
    Row("JSON for a stream", "hold", {"body": {"id": "c1"}}, DOWN),
    Row("an error frame before a word", "hold", {"error_after": 0}, DOWN),
    Row("an error frame after words", "seen", {"words": 9, "error_after": 4}, DOWN),
    Row(
        "an error frame of a thinker",
        "hold",
        {"words": 9, "reasoning": 43, "error_after": 4},
        DOWN,
        model="thinker",
    ),
    Row("a reset before a word", "hold", {"reset_after": 0}, DOWN),
    Row("a reset after words", "seen", {"words": 9, "reset_after": 4, "gap_ms": 20}, DOWN),
    Row(
        "a reset of a thinker",
        "hold",
        {"words": 9, "reasoning": 43, "reset_after": 4, "gap_ms": 20},
        DOWN,
        model="thinker",
    ),
    Row("garbage", "hold", {"raw": ["data: {oops\n\n"]}, DOWN),
    Row("garbage after words", "seen", {"raw": [word(), word(), "data: {oops\n\n"]}, DOWN),
    Row("half an event after words", "seen", {"raw": [word(), word()[:9]]}, DOWN),
    Row("nothing", "hold", {"raw": []}, DOWN),
    Row(
        "usage so far, cheap, and cut", "seen", {"raw": [word(says(7, 1)), word(says(7, 2))]}, DOWN
    ),
    Row(
        "usage so far, dear, and cut",
        (5000, 0, 2),
        {"raw": [word(says(5000, 1)), word(says(5000, 2))]},
        DOWN,
        over=True,
    ),
    Row("usage so far, zero, and cut", "seen", {"raw": [word(says(0, 0))], "prompt": 7}, DOWN),
    Row(
        "usage so far, and a last one",
        (7, 0, 2),
        {"raw": [word(says(7, 1)), word(says(7, 2), "stop"), "data: [DONE]\n\n"]},
    ),
]

WHOLE = [
    Row("an empty object", "hold", {"body": {}}),
    Row("no object", "hold", {"body": [1]}, DOWN),
    Row("an error with 200", "hold", {"body": {"error": {"message": "no"}}}, DOWN),
    Row("a stream for JSON", "hold", {"raw": [word()]}, DOWN),
    Row("an answer of usage alone", (7, 0, 3), {"body": {"usage": says(7, 3)}}),
]


def as_whole(row: Row) -> Row:
    """The same for an answer in one piece."""
    return Row(row.name, row.charge, row.script, row.code, False, row.model, row.over)


FEWER = WITH_USAGE + WITHOUT[::3] + REFUSALS[::3] + ODD + WHOLE
ROWS = [*WITH_USAGE, *WITHOUT, *REFUSALS, *ODD, *STREAMS, *map(as_whole, FEWER)]


def expected(row: Row, entry: dict[str, Any], bill: int, answer: Answer) -> int:
    """What the turn should cost, by upstream's books and by what the visitor saw."""
    if isinstance(row.charge, tuple):
        return cost_of(entry, *row.charge)
    if row.charge == "seen":
        return seen_of(entry, answer.text)
    return {"books": bill, "hold": hold_of(entry), "nothing": 0}[row.charge]


@pytest.mark.parametrize(
    "row", ROWS, ids=lambda row: f"{'stream' if row.stream else 'whole'}: {row.name}"
)
async def test_the_ledger_has_what_the_table_says(
    row: Row, redis_url: str, upstream: Upstream, tmp_path: Path
) -> None:
    """One turn, however upstream ends it."""
    async with till(redis_url, upstream, tmp_path) as (shop, visitor):
        answer = await visitor.say(play(**row.script), stream=row.stream, model=row.model)
        assert code_of(answer) == row.code, answer.body
        found, bill = await shop.truth()
        (entry,) = await upstream.books()
    assert found.spent == expected(row, entry, bill, answer)
    assert (found.over, found.past) == (int(row.over), 0)
    assert (found.spent > hold_of(entry)) is row.over


async def test_a_day_of_many_turns_adds_up(
    redis_url: str, upstream: Upstream, tmp_path: Path
) -> None:
    """Every turn whose usage came, in one chain: the sum of upstream's bills."""
    rows = [row for row in ROWS if row.charge == "books"]
    async with till(redis_url, upstream, tmp_path) as (shop, visitor):
        for row in rows:
            answer = await visitor.say(play(**row.script), stream=row.stream, model=row.model)
            assert answer.status == 200
        found, bill = await shop.truth()
        assert len(await upstream.books()) == len(rows)
    assert found.spent == bill > MAX_OUTPUT
    assert found.over == sum(row.over for row in rows)
