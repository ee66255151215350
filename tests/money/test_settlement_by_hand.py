"""Turns that end inside upstream's answer: whatever was said of usage until then is what counts.

Upstream is the test itself, so that it stops exactly there.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import aiohttp
import pytest

from patience import DEFAULT, Patience
from tests.money.settlement_stage import (
    Money,
    cost_of,
    hold_of,
    money,
    priced_settings,
    require_settled,
    seen_of,
)
from tests.stage import Server, Visitor, at_rest, eventually, serving, visiting
from tests.wire import DONE, ByHand, Call, asking, event

TEXT = "twenty bytes of text"
STOP = event("", finish="stop")
TOKENS = {"prompt_tokens": 31, "completion_tokens": 9, "total_tokens": 40}
USAGE = b"data: " + json.dumps({"id": "c1", "choices": [], "usage": TOKENS}).encode() + b"\n\n"
DEAR = USAGE.replace(b": 31", b": 9000")
WHOLE = {"choices": [{"message": {"content": TEXT}}], "usage": TOKENS}

Said = Callable[[Call], Awaitable[None]]
Charge = Literal["nothing", "hold", "seen"] | tuple[int, int, int]
Ending = Literal["hang-up", "end", "silence"]


def stream(*parts: bytes) -> Said:
    """The head of a stream, and so much of it."""

    async def say(call: Call) -> None:
        await call.begin()
        for part in parts:
            await call.say(part)

    return say


def answer(status: str, part: bytes = b"", *more: str) -> Said:
    """The head of a JSON answer, and so much of it."""

    async def say(call: Call) -> None:
        await call.begin(status, "application/json", *more)
        if part:
            await call.say(part)

    return say


def raw(data: bytes) -> Said:
    """These bytes, whatever they are."""
    return lambda call: call.say_raw(data)


@dataclass(frozen=True)
class Row:
    """What upstream said before it went on no more, what the visitor waits for, and the charge."""

    name: str
    said: Said
    charge: Charge
    until: bytes = b""
    stream: bool = True


WORD = event(TEXT)
USED = (31, 0, 9)
OK = "200 OK"
ROWS = [
    Row("no byte", raw(b""), "hold"),
    Row("half a head", raw(b"HTTP/1.1 200 OK\r\nContent-"), "hold"),
    Row("a head that is none", raw(b"SSH-2.0-x\r\n\r\n"), "hold"),
    Row("only a head", stream(), "hold"),
    Row("half an event", stream(WORD[:-9]), "hold"),
    Row("a comment", stream(b": thinking\n\n"), "hold", b"thinking"),
    Row("a word", stream(WORD), "seen", b"twenty"),
    Row("a word and a half", stream(WORD, WORD[:-9]), "seen", b"twenty"),
    Row("up to the finish", stream(WORD, STOP), "seen", b'"stop"'),
    Row("half of the usage", stream(WORD, STOP, USAGE[:-9]), "seen", b'"stop"'),
    Row("usage before the finish", stream(WORD, USAGE), "seen", b'"usage"'),
    Row("dear usage before the finish", stream(WORD, DEAR), (9000, 0, 9), b'"usage"'),
    Row("up to the usage", stream(WORD, STOP, USAGE), USED, b'"usage"'),
    Row("usage with no words", stream(STOP, USAGE), USED, b'"usage"'),
    Row("all but the end", stream(WORD, STOP, USAGE, DONE), USED, b"[DONE]"),
    Row("an error's head", answer("500 No"), "nothing"),
    Row("half an error", answer("429 No", b'{"error":'), "nothing"),
    Row("a redirect's head", answer("302 Found", b"", "Location: /v1/x"), "nothing"),
    Row("a whole answer's head", answer(OK), "hold", stream=False),
    Row("half a whole answer", answer(OK, json.dumps(WHOLE)[:-9].encode()), "hold", stream=False),
]


@asynccontextmanager
async def before(
    hand: ByHand, redis_url: str, directory: Path, patience: Patience = DEFAULT
) -> AsyncIterator[tuple[Server, Visitor]]:
    """A server with the prices of these tests before this upstream, and a visitor."""
    settings = priced_settings(redis_url, hand.url, directory)
    async with serving(settings, patience) as server, visiting(server) as visitor:
        yield server, visitor


async def read_until(asked: "asyncio.Task[aiohttp.ClientResponse]", mark: bytes) -> None:
    """Read an answer until something was in it."""
    read = b""
    while mark not in read:
        piece = await (await asked).content.readany()
        assert piece, read
        read += piece


async def ended(row: Row, ending: Ending, hand: ByHand, visitor: Visitor) -> dict[str, Any]:
    """One turn that ends so; returns what upstream was asked, as an entry of its books."""
    changed = {"stream": row.stream, "stream_options": {"include_usage": True}}
    async with asking(visitor, **changed) as asked:
        call = await hand.call()
        await row.said(call)
        if row.until:
            await read_until(asked, row.until)
        if ending == "end":
            call.close()
        if ending != "hang-up":
            await (await asked).read()
    assert await call.closed(2)
    return {"body": json.loads(call.body)}


async def charged(server: Server, redis_url: str) -> Money:
    """The ledger at rest."""
    await eventually(lambda: at_rest(server))
    found = money(redis_url)
    require_settled(found)
    return found


@pytest.mark.parametrize("ending", ["hang-up", "end", "silence"])
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
async def test_a_turn_that_ends_there_costs_this(
    row: Row, ending: Ending, redis_url: str, hand: ByHand, tmp_path: Path
) -> None:
    """Whoever ends it: the visitor, upstream before its time, or our patience."""
    patience = Patience(silence=0.3) if ending == "silence" else DEFAULT
    async with before(hand, redis_url, tmp_path, patience) as (server, visitor):
        entry = await ended(row, ending, hand, visitor)
        found = await charged(server, redis_url)
    if isinstance(row.charge, tuple):
        assert found.spent == cost_of(entry, *row.charge)
    else:
        costs = {"nothing": 0, "hold": hold_of(entry), "seen": seen_of(entry, TEXT)}
        assert found.spent == costs[row.charge]
    assert (found.over, found.past) == (int(found.spent > hold_of(entry)), 0)
