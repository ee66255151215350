"""What the tests of settlement stand on: odd prices, the ledger as Redis has it, one turn.

The prices are such that nearly every cost has to be rounded. Upstream's own books are the truth;
what a turn should cost is worked out here a second time, from them and from what the visitor saw.
"""

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import redis

from completions.prices import read_prices
from completions.turns import Turns
from house import Keyturn
from patience import DEFAULT, Patience
from security.ledger import Ledger
from settings import Settings
from tests.money.books import billed, total, worst
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

PREFIX = "keyturn:{main}:"
MARGIN = 50
MAX_OUTPUT = 400

PRICE_LIST = """
[models.plain]
input = 0.412377
cached_input = 0.103091
output = 1.649507
reasoning = false

[models.thinker]
input = 1.100003
cached_input = 0.275001
output = 4.400009
reasoning = true

[models.unsaid]
input = 1.100003
cached_input = 0.275001
output = 4.400009
output_limit_field = "max_tokens"
"""
PRICES = read_prices(PRICE_LIST.encode())


def priced_settings(redis_url: str, upstream_url: str, directory: Path, **said: Any) -> Settings:
    """Settings with the prices of this file, `plain` unless another model is asked for."""
    path = directory / "prices.toml"
    path.write_text(PRICE_LIST)
    chosen: dict[str, Any] = {
        "redis_url": redis_url,
        "openai_base_url": upstream_url,
        "byok_base_url": upstream_url,
        "prices_file": path,
        "allowed_models": "plain,thinker,unsaid",
        "default_model": "plain",
        "byok_models": "plain",
        "abort_margin_tokens": MARGIN,
        "max_output_tokens": MAX_OUTPUT,
        "redis_timeout_ms": 3000,  # how quick the machine is does not matter here
        "redis_deadline_ms": 9000,
    }
    return settings_with(**{**chosen, **said})


@dataclass(frozen=True)
class Money:
    """All that Redis knows of money, in µUSD, whatever day it is."""

    spent: int = 0
    held: int = 0
    over: int = 0
    past: int = 0
    holds: tuple[str, ...] = ()
    by_visitor: tuple[tuple[int, int], ...] = ()  # spent and held of each prefix


def money(redis_url: str) -> Money:
    """The ledger, read from outside."""
    with redis.Redis.from_url(redis_url, decode_responses=True) as store:
        spends = {key: store.hgetall(key) for key in store.scan_iter(PREFIX + "spend:*")}
        # A turn that is settled before it was admitted leaves a mark of its name, and no money.
        named = [key for key in store.scan_iter(PREFIX + "hold:*") if store.hlen(key) > 1]
        holds = {*named, *store.zrange(PREFIX + "holds", 0, -1)}
    days = [said for key, said in spends.items() if re.search(r":spend:\d+$", key)]
    others = [said for key, said in spends.items() if not re.search(r":spend:\d+$", key)]
    sums = {
        name: sum(int(day.get(name, 0)) for day in days)
        for name in ("spent", "held", "over", "past")
    }
    each = sorted((int(said.get("spent", 0)), int(said.get("held", 0))) for said in others)
    return Money(**sums, holds=tuple(sorted(holds)), by_visitor=tuple(each))


def require_settled(found: Money) -> None:
    """Nothing is held any more, and a day's only visitor is told the same as the day."""
    assert (found.held, found.holds) == (0, ())
    spent = sum(spent for spent, _ in found.by_visitor)
    assert (spent, {held for _, held in found.by_visitor} - {0}) == (found.spent, set())


@dataclass
class Till:
    """A server with prices, its upstream and its ledger."""

    server: Server
    upstream: Upstream
    redis_url: str

    async def closed(self) -> tuple[Money, list[dict[str, Any]]]:
        """The ledger and upstream's books, once every turn is settled and upstream has ended."""
        books: list[dict[str, Any]] = []

        async def upstream_is_done() -> bool:
            books[:] = await self.upstream.books()
            return all(entry["ended"] != "open" for entry in books)

        await eventually(lambda: at_rest(self.server))
        await eventually(upstream_is_done)
        found = money(self.redis_url)
        require_settled(found)
        return found, books

    async def truth(self) -> tuple[Money, int]:
        """The ledger, which never has less than upstream bills, and what upstream bills."""
        found, books = await self.closed()
        bill = total(books, PRICES)
        assert found.spent >= bill, (found, books)
        return found, bill


@asynccontextmanager
async def till(
    redis_url: str,
    upstream: Upstream,
    directory: Path,
    patience: Patience = DEFAULT,
    around: Callable[[Keyturn], Keyturn] = lambda keyturn: keyturn,
    **said: Any,
) -> AsyncIterator[tuple[Till, Visitor]]:
    """A server with the prices of this file, and a visitor."""
    settings = priced_settings(redis_url, upstream.url, directory, **said)
    async with serving(settings, patience, around=around) as server, visiting(server) as visitor:
        yield Till(server, upstream, redis_url), visitor


def hold_of(entry: dict[str, Any], max_output: int = MAX_OUTPUT) -> int:
    """The most that the turn behind this entry can cost: what was held for it."""
    return worst(entry["body"], PRICES[entry["body"]["model"]], max_output)


def seen_of(entry: dict[str, Any], text: str) -> int:
    """What a cut costs after so much text: its prompt as held, a token a byte, the margin."""
    return hold_of(entry, min(MAX_OUTPUT, len(text.encode()) + MARGIN))


def cost_of(entry: dict[str, Any], prompt: int, cached: int, output: int) -> int:
    """What so many tokens cost at the prices of this entry's model."""
    said = {"prompt_tokens": prompt, "cached_tokens": cached, "output_tokens": output}
    return billed({"body": entry["body"], **said}, PRICES)


def frame_of(answer: Answer) -> str | None:
    """The code of the error frame with which a stream ended, None if it ended well."""
    return answer.failure


def code_of(answer: Answer) -> str | None:
    """The code of the problem, or of the frame with which the stream ended."""
    is_stream = answer.headers["Content-Type"].startswith("text/event-stream")
    return frame_of(answer) if is_stream else answer.code


async def leave(
    visitor: Visitor, at: bytes, content: str, *, times: int = 1, **changed: Any
) -> bytes:
    """Ask, read until `at` was seen so often, and hang up; returns what was read."""
    body = visitor.body(content, **changed)
    url = visitor.url + visitor.path
    async with visitor.session.post(url, data=body, headers=visitor.headers()) as answer:
        visitor.token = answer.headers.get("Keyturn-Token") or visitor.token
        read = b""
        while read.count(at) < times:
            piece = await answer.content.readany()
            assert piece, read
            read += piece
        answer.close()
    return read


def with_turns(
    kind: type[Turns] = Turns, ledger: Callable[[Ledger], Any] = lambda ledger: ledger
) -> Callable[[Keyturn], Keyturn]:
    """The house with other turns, or with turns that settle elsewhere: for the controls."""

    def around(keyturn: Keyturn) -> Keyturn:
        turns = kind(
            ledger(keyturn.ledger),
            keyturn.turns._capacity,
            max_seconds=keyturn.settings.max_stream_seconds,
            abort_margin=keyturn.settings.abort_margin_tokens,
        )
        return replace(keyturn, turns=turns)

    return around
