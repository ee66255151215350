"""Around the edges of settlement: upstreams past their limit, turns that cost nobody anything.

An upstream that ignores its output limit is cut at once, and is the one case in which it may bill
more than was held: what the operator then sees is `past`, and a line in the log.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.causes import break_part
from tests.money.books import total
from tests.money.settlement_stage import (
    MAX_OUTPUT,
    PREFIX,
    PRICES,
    Money,
    cost_of,
    frame_of,
    hold_of,
    leave,
    money,
    priced_settings,
    require_settled,
    till,
)
from tests.own_key_stage import CHAT, JSON, by_bearer, own_body
from tests.stage import Upstream, at_rest, eventually, serving, visiting
from tests.upstream import play
from tests.wire import DONE, ByHand, asking, event

ENDLESS = {"words": 2 * MAX_OUTPUT, "gap_ms": 3, "ignore_limit": True}
WARNING = "upstream went past the output limit"


@pytest.mark.parametrize("model", ["plain", "thinker"])
async def test_an_upstream_past_its_limit_is_cut(
    redis_url: str, upstream: Upstream, tmp_path: Path, model: str, caplog: pytest.LogCaptureFixture
) -> None:
    """At the first delta too many: closed, said in a frame and the log; each delta is charged."""
    async with till(redis_url, upstream, tmp_path) as (shop, visitor):
        answer = await visitor.say(play(**ENDLESS), model=model)
        found, (entry,) = await shop.closed()
    assert frame_of(answer) == "upstream_unavailable"
    assert MAX_OUTPUT < answer.body.count(b'"word "') <= entry["chunks"] < ENDLESS["words"]
    assert entry["ended"] == "closed"
    assert found.spent > hold_of(entry)
    assert (found.over, found.past) == (1, 1)
    assert caplog.text.count(WARNING) == 1


async def test_an_upstream_at_its_limit_is_not_cut(
    redis_url: str, upstream: Upstream, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As many deltas as tokens are well."""
    async with till(redis_url, upstream, tmp_path) as (shop, visitor):
        answer = await visitor.say(play(words=MAX_OUTPUT, ignore_limit=True))
        found, bill = await shop.truth()
    assert answer.body.endswith(DONE)
    assert (found.spent, found.over, found.past) == (bill, 0, 0)
    assert WARNING not in caplog.text


async def test_a_whole_answer_past_its_limit_costs_what_usage_says(
    redis_url: str, upstream: Upstream, tmp_path: Path
) -> None:
    """It is here already, and its usage tells: charged in full, above the hold."""
    async with till(redis_url, upstream, tmp_path) as (shop, visitor):
        answer = await visitor.say(play(**ENDLESS), stream=False)
        found, bill = await shop.truth()
        (entry,) = await upstream.books()
    assert answer.status == 200
    assert (found.spent, found.over) == (bill, 1)
    assert bill > hold_of(entry)


async def test_an_answer_that_is_complete_is_not_cut_any_more(
    redis_url: str, hand: ByHand, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Too long, and all of it in one piece: nothing follows its [DONE], and it costs its usage."""
    tokens = {"prompt_tokens": 9, "completion_tokens": 900}
    usage = b"data: " + json.dumps({"choices": [], "usage": tokens}).encode() + b"\n\n"
    words = event("word") * 3 + event("", finish="stop")
    async with (
        serving(priced_settings(redis_url, hand.url, tmp_path)) as server,
        visiting(server) as visitor,
    ):
        async with asking(visitor, max_tokens=2) as asked:
            call = await hand.call()
            await call.begin()
            await call.end(words + usage + DONE)
            assert await (await asked).read() == words + DONE
        await eventually(lambda: at_rest(server))
        found = money(redis_url)
    require_settled(found)
    assert found.spent == cost_of({"body": json.loads(call.body)}, 9, 0, 900)
    assert (found.over, found.past) == (1, 1)
    assert WARNING in caplog.text


async def test_a_repeated_turn_costs_once(
    redis_url: str, upstream: Upstream, tmp_path: Path
) -> None:
    """Whoever sends again what was lost is told the successor, and upstream is not asked."""
    async with till(redis_url, upstream, tmp_path) as (shop, visitor):
        headers = visitor.headers(Idempotency_Key="the-key-of-this-turn")
        for status in (200, 409, 409):
            assert (await visitor.post(visitor.body(), headers)).status == status
        found, bill = await shop.truth()
        assert len(await upstream.books()) == 1
    assert found.spent == bill > 0


REFUSED: list[tuple[str, Any]] = [
    ("timestamp_stale", {"headers": {"Keyturn_Timestamp": "1000000000000"}}),
    ("token_malformed", {"headers": {"Authorization": "Bearer nonsense"}}),
    ("fingerprint_mismatch", {"headers": {"Keyturn_Fingerprint": "another-fingerprint"}}),
    ("unsupported_parameter", {"tools": []}),
    ("invalid_request", {"model": "unheard-of"}),
    ("rate_limited", {}),
    ("visitor_blocked", {}),
    ("paused", {}),
]


@pytest.mark.parametrize(("code", "said"), REFUSED)
async def test_who_is_refused_pays_nothing(
    redis_url: str, upstream: Upstream, tmp_path: Path, code: str, said: Any
) -> None:
    """The ledger stays as the turn before has left it."""
    rate: dict[str, Any] = {"rate_limit": "1/day"} if code == "rate_limited" else {}
    async with till(redis_url, upstream, tmp_path, **rate) as (shop, visitor):
        await visitor.say()
        before, _ = await shop.truth()
        name = shop.server.keyturn.hash("addr", b"127.0.0.1/32")
        with redis.Redis.from_url(redis_url) as store:
            if code == "paused":
                store.hset(PREFIX + "control", "paused", "1")
            if code == "visitor_blocked":
                store.zadd(PREFIX + "blocked", {name: 2**45})
        answer = await visitor.say(**said)
        assert answer.code == code
        assert money(redis_url) == before
        assert len(await upstream.books()) == 1


async def test_a_fault_of_ours_after_admission_costs_nothing(
    redis_url: str, upstream: Upstream, tmp_path: Path
) -> None:
    """Upstream was not asked, so the hold goes back."""
    around = break_part("upstream")
    async with till(redis_url, upstream, tmp_path, around=around) as (shop, visitor):
        answer = await visitor.say()
        found, _ = await shop.truth()
    assert answer.code == "internal_error"
    assert (found.spent, len(found.by_visitor)) == (0, 1)


async def test_own_keys_leave_no_trace_in_the_money(
    redis_url: str, upstream: Upstream, tmp_path: Path
) -> None:
    """Through both doors, whole, streamed, refused and left: no day, no visitor, no hold."""
    async with till(redis_url, upstream, tmp_path) as (shop, visitor):
        for script in ({}, {"status": 401, "body": {}}, {"error_after": 1}):
            for stream in (True, False):
                body = visitor.body(play(**script), stream=stream)
                assert (await visitor.post(body, by_bearer())).status < 500
        assert (await visitor.post(own_body(play()), JSON, CHAT)).status == 200
        async with asking(visitor, content=play(silent=True), headers=by_bearer()):
            await eventually(lambda: asked(upstream, 8))
            assert money(redis_url) == Money()
        await eventually(lambda: at_rest(shop.server))
        assert money(redis_url) == Money()


async def asked(upstream: Upstream, count: int) -> bool:
    """Whether upstream was asked so often."""
    return len(await upstream.books()) == count


async def test_a_visitor_of_ipv6_is_charged_twice_over(
    redis_url: str, upstream: Upstream, tmp_path: Path
) -> None:
    """In the narrow prefix and in the wide one, with the same amount, which the day counts once."""
    trusting: dict[str, Any] = {"trusted_proxies": "127.0.0.1"}
    async with till(redis_url, upstream, tmp_path, **trusting) as (shop, visitor):
        for host in ("2001:db8:1:1::1", "2001:db8:1:1::2", "2001:db8:1:2::1"):
            visitor.extra, visitor.token = {"X-Forwarded-For": host}, None
            await visitor.say(play(words=9))
            await leave(visitor, b"word", play(words=9, hang_after=1))
        await eventually(lambda: at_rest(shop.server))
        found, books = money(redis_url), await upstream.books()
    one = found.spent // 3
    assert found.spent >= total(books, PRICES)
    assert (found.held, found.holds) == (0, ())
    assert found.by_visitor == ((one, 0), (2 * one, 0), (3 * one, 0))
