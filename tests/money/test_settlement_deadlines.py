"""Turns that last too long, upstreams that are not there, a server that is stopped: what they cost.

Whoever was asked and did not answer may bill all that it was allowed to; whoever could not be
asked bills nothing.
"""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from patience import Patience
from tests.command_stage import server_py
from tests.money.books import total
from tests.money.settlement_stage import (
    MARGIN,
    MAX_OUTPUT,
    PRICE_LIST,
    PRICES,
    code_of,
    hold_of,
    money,
    priced_settings,
    require_settled,
    seen_of,
    till,
)
from tests.stage import (
    OPERATORS_KEY,
    SECRET,
    Answer,
    Upstream,
    Visitor,
    at_rest,
    eventually,
    serving,
    visiting,
)
from tests.upstream import play
from tests.wire import free_port

IMPATIENT = Patience(silence=0.3)
LONG = {"words": 390, "gap_ms": 20}


@dataclass(frozen=True)
class Row:
    """What takes too long, and what it costs: the hold, by what was seen, or at least the books."""

    name: str
    charge: str
    script: dict[str, Any]
    stream: bool = True
    model: str = "plain"
    said: dict[str, Any] = field(default_factory=dict)


MAX_SECONDS = {"patience": Patience(), "max_stream_seconds": 1}
ROWS = [
    Row("the first byte", "hold", {"silent": True}),
    Row("the first byte of a whole answer", "hold", {"silent": True}, stream=False),
    Row("the first word", "hold", {"words": 9, "hang_after": 0}),
    Row("the next word", "seen", {"words": 9, "hang_after": 4}),
    Row("a thinker's next word", "hold", {"words": 9, "hang_after": 4}, model="thinker"),
    Row("a pause between all words", "seen", {"words": 9, "gap_ms": 900}, said={
        "patience": Patience(silence=1.2), "max_stream_seconds": 2}),
    Row("the whole of it", "books or more", LONG, said=MAX_SECONDS),
    Row("the whole of a thinker's", "hold", LONG, model="thinker", said=MAX_SECONDS),
    Row("the whole in silence", "hold", {"silent": True}, said=MAX_SECONDS),
]  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
async def test_what_lasts_too_long_is_charged(
    row: Row, redis_url: str, upstream: Upstream, tmp_path: Path
) -> None:
    """Upstream is closed, the visitor told, and the turn settled by what is known of it."""
    said = {"patience": IMPATIENT, **row.said}
    async with till(redis_url, upstream, tmp_path, **said) as (shop, visitor):
        answer = await visitor.say(play(**row.script), stream=row.stream, model=row.model)
        assert code_of(answer) == "upstream_timeout"
        found, bill = await shop.truth()
        (entry,) = await upstream.books()
    assert entry["ended"] == "closed"
    costs = {"hold": hold_of(entry), "books or more": found.spent}
    assert found.spent == (costs.get(row.charge) or seen_of(entry, answer.text))
    assert bill <= found.spent <= hold_of(entry)


@contextlib.contextmanager
def full_house() -> Iterator[str]:
    """A port whose queue is full, so that a connection to it waits; yields a URL."""
    with socket.socket() as door, contextlib.ExitStack() as stack:
        door.bind(("127.0.0.1", 0))
        door.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(door.getsockname())
        yield f"http://127.0.0.1:{door.getsockname()[1]}/v1"


@contextlib.contextmanager
def closed_port() -> Iterator[str]:
    """A port where nobody listens."""
    yield f"http://127.0.0.1:{free_port()}/v1"


@contextlib.contextmanager
def no_tls() -> Iterator[str]:
    """A server that takes the first words of TLS for nonsense."""
    with socket.create_server(("127.0.0.1", 0)) as door:
        door.settimeout(10)

        def say_no() -> None:
            with contextlib.suppress(OSError):
                while True:
                    with door.accept()[0] as peer:
                        peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        executor = asyncio.get_running_loop().run_in_executor(None, say_no)
        yield f"https://127.0.0.1:{door.getsockname()[1]}/v1"
        door.shutdown(socket.SHUT_RDWR)
    assert not executor.cancelled()


PLACES = [
    (closed_port, "upstream_unavailable"),
    (full_house, "upstream_timeout"),
    (no_tls, "upstream_unavailable"),
]


@pytest.mark.parametrize(("place", "code"), PLACES)
@pytest.mark.parametrize("stream", [True, False])
async def test_who_cannot_be_asked_bills_nothing(
    place: Any, code: str, redis_url: str, tmp_path: Path, stream: bool
) -> None:
    """No connection, no request: the whole hold goes back."""
    with place() as url:
        settings = priced_settings(redis_url, url, tmp_path)
        async with serving(settings, Patience(connect=0.3)) as server, visiting(server) as visitor:
            answer = await visitor.say(stream=stream)
            assert answer.code == code
            await eventually(lambda: at_rest(server))
            found = money(redis_url)
    require_settled(found)
    assert (found.spent, len(found.by_visitor)) == (0, 1)


async def test_a_stop_settles_what_it_cuts(
    redis_url: str, upstream: Upstream, tmp_path: Path
) -> None:
    """SIGTERM with turns under way that outlast the drain: all are charged before the exit."""
    prices = tmp_path / "prices.toml"
    prices.write_text(PRICE_LIST)
    said = {
        "REDIS_URL": redis_url,
        "OPENAI_BASE_URL": upstream.url,
        "OPENAI_API_KEY": OPERATORS_KEY,
        "API_SECRET_KEY": SECRET,
        "PRICES_FILE": str(prices),
        "ALLOWED_MODELS": "plain,thinker",
        "DEFAULT_MODEL": "plain",
        "ABORT_MARGIN_TOKENS": str(MARGIN),
        "MAX_OUTPUT_TOKENS": str(MAX_OUTPUT),
        "DRAIN_SECONDS": "1",
    }
    with server_py(tmp_path / "kt", **said) as running:
        async with visiting(running.url) as visitor:
            asked = asyncio.create_task(crowd(visitor))
            await eventually(lambda: all_begun(upstream, 6))
            running.process.send_signal(signal.SIGTERM)
            answers = await asked
        assert await asyncio.to_thread(running.process.wait, 10) == 0
    found, books = money(redis_url), await upstream.books()
    require_settled(found)
    assert [code_of(answer) for answer in answers] == ["overloaded"] * 6
    by_model = {model: [e for e in books if e["body"]["model"] == model] for model in PRICES}
    assert found.spent >= total(books, PRICES) > 0
    holds = sum(hold_of(entry) for entry in by_model["thinker"])
    assert holds + hold_of(by_model["plain"][0]) < found.spent < sum(map(hold_of, books))


async def crowd(visitor: Visitor) -> list[Answer]:
    """Two models writing words, two waiting for the first, two of which are thinkers."""
    scripts = [("plain", LONG)] * 3 + [("plain", {"silent": True})] + [("thinker", LONG)] * 2
    bodies = [visitor.body(play(**script), model=model) for model, script in scripts]
    return list(await asyncio.gather(*(visitor.post(b, visitor.headers()) for b in bodies)))


async def all_begun(upstream: Upstream, count: int) -> bool:
    """Whether so many were asked for, and each that writes has begun to."""
    books = await upstream.books()
    return len(books) == count and sum(entry["chunks"] > 0 for entry in books) == count - 1
