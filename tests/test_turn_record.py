"""One record for each POST to a route that spends, at its end, however it ends."""

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import aiohttp
import pytest

from completions.prices import Usage
from house import Keyturn
from patience import DEFAULT, Patience
from security.spending import read_day
from tests.own_key_stage import OWN_KEY
from tests.stage import (
    CHAT,
    RESPONSES,
    Server,
    Upstream,
    Visitor,
    at_rest,
    eventually,
    serving,
    settings_with,
    visiting,
)
from tests.upstream import play
from turn_record import TurnNote, TurnRecord

MINI = "gpt-4.1-mini"


@asynccontextmanager
async def recording(
    store: str, upstream: Upstream, patience: Patience = DEFAULT, **said: Any
) -> AsyncIterator[tuple[Server, list[TurnRecord]]]:
    """A server, and every record that it makes."""
    records: list[TurnRecord] = []

    def watched(keyturn: Keyturn) -> Keyturn:
        return replace(keyturn, observers=(records.append,))

    urls = {"openai_base_url": upstream.url, "byok_base_url": upstream.url}
    settings = settings_with(**{"redis_url": store, **urls, **said})
    async with serving(settings, patience, around=watched) as server:
        yield server, records


Act = Callable[[Server, Visitor], Awaitable[Any]]


@dataclass(frozen=True)
class Way:
    """A way in which a turn ends: what is done, and what its record says."""

    act: Act
    expected: dict[str, Any]
    patience: Patience = DEFAULT
    said: dict[str, Any] = field(default_factory=dict)


def says(content: str = "hello", **changed: Any) -> Act:
    """A turn, read to its end."""
    return lambda server, visitor: visitor.say(content, **changed)


async def says_by_own_key(server: Server, visitor: Visitor) -> None:
    """A turn by a visitor's own key."""
    await visitor.post(visitor.body(), visitor.headers(Authorization=f"Bearer {OWN_KEY}"))


async def chats_in_plain(server: Server, visitor: Visitor) -> None:
    """A turn at /api/chat."""
    body = json.dumps({"api_key": OWN_KEY, "developer_message": "", "user_message": "hi"})
    headers = {"Content-Type": "application/json"}
    await visitor.post(body.encode(), headers, "/api/chat")


async def leaves_early(server: Server, visitor: Visitor) -> None:
    """A visitor who hangs up before upstream has answered."""
    with contextlib.suppress(asyncio.TimeoutError):
        async with asyncio.timeout(0.3):
            await visitor.say(play(silent=True))


async def leaves_within(server: Server, visitor: Visitor) -> None:
    """A visitor who hangs up in the middle of a stream."""
    body = visitor.body(play(words=9, hang_after=1))
    async with visitor.session.post(
        visitor.url + visitor.path, data=body, headers=visitor.headers()
    ) as answer:
        await answer.content.readany()


async def reads_nothing(server: Server, visitor: Visitor) -> None:
    """A visitor who takes in no byte of a long answer, until it is cut."""
    body = visitor.body(play(words=1000, text="x" * 8000))
    async with visitor.session.post(
        visitor.url + visitor.path, data=body, headers=visitor.headers(), read_bufsize=1
    ) as answer:
        await eventually(lambda: at_rest(server))
        with contextlib.suppress(aiohttp.ClientError):
            await answer.read()


async def is_drained(server: Server, visitor: Visitor) -> None:
    """A stream that is running when the server is told to stop."""
    body = visitor.body(play(words=9, hang_after=1))
    async with visitor.session.post(
        visitor.url + visitor.path, data=body, headers=visitor.headers()
    ) as answer:
        await answer.content.readany()
        server.keyturn.turns.drain(0.1)
        await answer.read()


async def meets_a_fault(server: Server, visitor: Visitor) -> None:
    """A turn that our own code fails on."""
    broken: Any = None
    server.app.state.keyturn = replace(server.keyturn, policy=broken)
    await visitor.say()


REFUSED: dict[str, Any] = {
    **{"cost_micro_usd": None, "ttfb_ms": None, "input_tokens": None, "output_tokens": None},
}
UNANSWERED: dict[str, Any] = {"ttfb_ms": None, "input_tokens": None, "output_tokens": None}
ANSWERED: dict[str, Any] = {
    **{"status": 200, "code": "ok", "model": MINI, "input_tokens": 7, "output_tokens": 3},
    **{"stream": True, "own_key": False},
}
BROKEN: dict[str, Any] = {"status": 200, "model": MINI, "stream": True, "input_tokens": None}
CODE = "upstream_unavailable"

WAYS = {
    "streamed": Way(says(), {**ANSWERED, "cost_micro_usd": 8}),
    "whole": Way(says(stream=False), {**ANSWERED, "stream": False, "cost_micro_usd": 8}),
    "other model": Way(says(model="gpt-4o-mini"), {**ANSWERED, "model": "gpt-4o-mini"}),
    "own key": Way(says_by_own_key, {**ANSWERED, "own_key": True, "cost_micro_usd": 0}),
    "plain": Way(
        chats_in_plain,
        {
            **{"status": 200, "code": "ok", "route": "/api/chat", "own_key": True},
            **{"model": MINI, "stream": True, "cost_micro_usd": 0, "input_tokens": None},
        },
    ),
    "malformed": Way(
        lambda server, visitor: visitor.post(b"{", visitor.headers()),
        {**REFUSED, "status": 400, "code": "malformed_json", "model": None, "stream": False},
    ),
    "no timestamp": Way(
        says(headers={"Keyturn_Timestamp": None}),
        {**REFUSED, "status": 400, "code": "timestamp_missing", "model": None},
    ),
    "wrong origin": Way(
        says(headers={"Origin": "https://other.example"}),
        {**REFUSED, "status": 403, "code": "origin_forbidden", "visitor": None},
    ),
    "own key refused": Way(
        says_by_own_key,
        {**REFUSED, "status": 403, "code": "byok_disabled", "own_key": True, "visitor": None},
        said={"byok": "off"},
    ),
    "no money": Way(
        says(),
        {**REFUSED, "status": 503, "code": "budget_exhausted", "model": MINI, "stream": True},
        said={"daily_budget_usd": "0"},
    ),
    "no store": Way(
        says(),
        {**REFUSED, "status": 503, "code": "store_unavailable", "model": MINI},
        said={"redis_url": "unix:///no/where"},
    ),
    "upstream fails": Way(
        says(play(status=500)),
        {**REFUSED, "status": 502, "code": CODE, "model": MINI, "cost_micro_usd": 0},
    ),
    "fails within": Way(says(play(error_after=1)), {**BROKEN, "code": CODE}),
    "breaks off": Way(says(play(reset_after=1)), {**BROKEN, "code": CODE}),
    "leaves early": Way(leaves_early, {**UNANSWERED, "status": 0, "code": "gone", "model": MINI}),
    "leaves within": Way(leaves_within, {**BROKEN, "code": "gone", "output_tokens": None}),
    "slow reader": Way(
        reads_nothing, {"status": 200, "code": "slow_reader"}, patience=Patience(write=0.3)
    ),
    "drained": Way(is_drained, {**BROKEN, "code": "overloaded"}),
    "too late": Way(
        says(play(words=9, hang_after=1)),
        {**BROKEN, "code": "upstream_timeout"},
        said={"max_stream_seconds": 1},
    ),
    "fault": Way(meets_a_fault, {**REFUSED, "status": 500, "code": "internal_error"}),
}


@pytest.mark.parametrize("name", WAYS)
async def test_a_turn_ends_in_one_record(name: str, redis_url: str, upstream: Upstream) -> None:
    """However it ends; and the record says how, and what is known of it."""
    way = WAYS[name]
    async with (
        recording(redis_url, upstream, way.patience, **way.said) as (server, records),
        visiting(server) as visitor,
    ):
        await way.act(server, visitor)
        await eventually(lambda: made(records))
        ours = server.keyturn.hash("addr", b"127.0.0.1/32")
        spent = None if name == "no store" else await spent_in(server)
    (record,) = records
    assert {key: getattr(record, key) for key in way.expected} == way.expected
    assert record.route == way.expected.get("route", CHAT)
    assert record.visitor == way.expected.get("visitor", ours)
    assert (record.cost_micro_usd or None) == spent, "what was charged in Redis"
    assert 0 < record.duration_ms < 60_000
    if record.status == 200:
        assert record.ttfb_ms is not None
        assert 0 < record.ttfb_ms <= record.duration_ms


async def spent_in(server: Server) -> int | None:
    """What was spent by all that Redis knows, once all is settled; None where nothing was."""
    await eventually(lambda: at_rest(server))
    keyturn = server.keyturn
    day = await read_day(keyturn.store, tenant="main", cap=None)
    return day.spent or None


async def made(records: list[TurnRecord]) -> bool:
    return bool(records)


async def test_each_route_has_its_own_name(redis_url: str, upstream: Upstream) -> None:
    """Responses too; and what spends nothing is no turn, nor is another method or a preflight."""
    async with recording(redis_url, upstream) as (server, records):
        async with visiting(server, path=RESPONSES) as visitor:
            await visitor.say()
            for method, path in (("GET", RESPONSES), ("POST", "/v1/models"), ("GET", "/healthz")):
                async with visitor.session.request(method, server.url + path):
                    pass
            asks = {"Origin": "https://page.example", "Access-Control-Request-Method": "POST"}
            async with visitor.session.options(server.url + RESPONSES, headers=asks) as answer:
                assert answer.status == 204
        await eventually(lambda: made(records))
    assert [(record.route, record.code) for record in records] == [(RESPONSES, "ok")]


async def test_a_record_has_the_label_that_the_visitor_was_told(
    redis_url: str, upstream: Upstream
) -> None:
    """The request's own, where it has a good one, else the one that was made for it."""
    async with recording(redis_url, upstream) as (server, records), visiting(server) as visitor:
        told = [
            (await visitor.say(headers={"X_Request_Id": label})).headers["X-Request-Id"]
            for label in ("a-label-of-mine", None, "not good")
        ]
        await eventually(lambda: all_of(records, 3))
    assert [record.request_id for record in records] == told
    assert told[0] == "a-label-of-mine"
    assert len(set(told)) == 3


async def all_of(records: list[TurnRecord], number: int) -> bool:
    return len(records) == number


async def test_what_an_observer_does_wrong_is_not_the_visitors_concern(
    redis_url: str, upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    """The answer is whole, the others are told, and the log says where it went wrong, not what."""
    records: list[TurnRecord] = []

    def broken(record: TurnRecord) -> None:
        raise ValueError("a secret of " + record.request_id)

    caplog.set_level(logging.INFO)
    async with recording(redis_url, upstream) as (server, _), visiting(server) as visitor:
        watched = replace(server.keyturn, observers=(broken, records.append))
        server.app.state.keyturn = watched
        assert (await visitor.say()).text == "hello hello hello "
        await eventually(lambda: made(records))
    assert "unexpected ValueError" in caplog.text
    assert "a secret of" not in caplog.text


def test_a_note_tells_no_more_than_is_known() -> None:
    """Nothing was found out: None in every place; tokens and times as they were noted."""
    empty = TurnNote(began=10.0).record("a-label-", CHAT, 10.5)
    assert (empty.model, empty.visitor, empty.input_tokens, empty.cost_micro_usd) == (None,) * 4
    assert (empty.status, empty.code, empty.ttfb_ms, empty.duration_ms) == (0, "ok", None, 500.0)
    note = TurnNote(began=10.0, usage=Usage(prompt=7, cached=2, output=3), first_byte=10.25)
    full = note.record("a-label-", CHAT, 10.5)
    assert (full.input_tokens, full.output_tokens, full.ttfb_ms) == (7, 3, 250.0)
