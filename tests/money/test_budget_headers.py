"""What a visitor is told of their money: to the µUSD, on every answer the script had a part in."""

import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import redis

from tests import causes
from tests.causes import Scene, upstream_says
from tests.money.budget_stage import CAP, DAY, LIMIT, Told, told, until_midnight, usd
from tests.money.settlement_stage import PREFIX, hold_of, money, till
from tests.own_key_stage import CHAT, JSON, by_bearer, own_body
from tests.stage import Answer, Upstream, at_rest, eventually
from tests.upstream import play


async def test_a_turn_takes_its_hold_and_gives_back_the_rest(
    redis_url: str, upstream: Upstream, tmp_path: Path
) -> None:
    """Turn by turn: what is left is the cap without all that was spent and this turn's hold."""
    async with till(redis_url, upstream, tmp_path, visitor_daily_budget_usd=usd(CAP)) as (shop, v):
        spent = 0
        for number, script in enumerate(({}, {"words": 90}, {"prompt": 2000}, {"error_after": 1})):
            answer = await v.say(play(**script), stream=number != 1)
            hold = hold_of((await upstream.books())[-1])
            assert told(answer).remaining == CAP - spent - hold
            assert told(answer).limit == CAP
            await eventually(lambda: at_rest(shop.server))
            spent = money(redis_url).spent
    assert 0 < spent < CAP


async def test_a_turn_under_way_is_held(redis_url: str, upstream: Upstream, tmp_path: Path) -> None:
    """Whoever asks meanwhile is told that less is left."""
    async with till(redis_url, upstream, tmp_path, visitor_daily_budget_usd=usd(CAP)) as (shop, v):
        with redis.Redis.from_url(redis_url) as store:
            async with Scene(shop.server, v, store).open_stream():
                held = money(redis_url).held
                answer = await v.say()
        [first, second] = await upstream.books()
    assert held == hold_of(first)
    assert told(answer).remaining == CAP - held - hold_of(second)


async def test_it_is_reset_at_midnight(redis_url: str, upstream: Upstream, tmp_path: Path) -> None:
    """In as many seconds as the UTC day has left, and never in none."""
    async with till(redis_url, upstream, tmp_path) as (_, visitor):
        before = until_midnight()
        reset = told(await visitor.say()).reset
        after = until_midnight()
    assert 1 <= reset <= DAY
    assert before >= reset >= after or after > before  # the day has changed meanwhile


async def test_what_is_left_is_never_a_debt(
    redis_url: str, upstream: Upstream, tmp_path: Path
) -> None:
    """A turn that cost more than was held may pass the cap; then nothing is left."""
    async with till(redis_url, upstream, tmp_path, visitor_daily_budget_usd=usd(CAP)) as (shop, v):
        assert (await v.say(play(prompt=90_000))).status == 200
        await eventually(lambda: at_rest(shop.server))
        assert money(redis_url).spent > CAP
        answer = await v.say()
    assert (answer.code, told(answer).remaining) == ("budget_visitor", 0)


async def test_a_visitor_of_ipv6_is_told_of_the_tighter_tier(
    redis_url: str, upstream: Upstream, tmp_path: Path
) -> None:
    """The wide prefix has four caps, and may have less left than the narrow one."""
    said: dict[str, Any] = {"trusted_proxies": "127.0.0.1", "visitor_daily_budget_usd": usd(CAP)}
    async with till(redis_url, upstream, tmp_path, **said) as (shop, visitor):
        visitor.extra = {"X-Forwarded-For": "2001:db8:1:1::1"}
        wide = shop.server.keyturn.hash("addr", b"2001:db8:1::/48")
        with redis.Redis.from_url(redis_url) as store:
            day = int(time.time()) // DAY
            store.hset(f"{PREFIX}spend:{day}:{wide}", "spent", str(4 * CAP - 5000))
        answer = await visitor.say()
        [entry] = await upstream.books()
    assert told(answer) == Told(5000 - hold_of(entry), CAP, told(answer).reset)


Act = Callable[[Scene], Awaitable[Answer]]
REACHED: list[tuple[str, Act, dict[str, Any]]] = [
    ("rate_limited", causes.asked_twice, {"rate_limit": "1/minute"}),
    ("start_limited", causes.asked_twice, {"start_limit": "1/hour"}),
    ("too_many_streams", causes.a_second_stream, {"max_streams_per_ip": 1}),
    ("visitor_blocked", causes.blocked, {}),
    ("fingerprint_mismatch", causes.another_fingerprint, {}),
    ("chain_unknown", causes.forgotten, {}),
    ("chain_revoked", causes.revoked, {}),
    ("token_reused", causes.used_a_moment_ago, {}),
    ("token_reused", causes.used_long_ago, {}),
    ("duplicate_request", causes.repeated, {}),
    ("idempotency_conflict", causes.repeated_otherwise, {}),
    ("paused", causes.paused, {}),
    ("budget_exhausted", causes.day_is_spent, {}),
    ("upstream_rejected", upstream_says(status=403, body={}), {}),
    ("upstream_rate_limited", upstream_says(status=429, body={}), {}),
]
NOT_REACHED: list[tuple[str, Act]] = [
    ("not_found", causes.wrong_path),
    ("timestamp_stale", causes.plain(Keyturn_Timestamp="1000000000000")),
    ("token_malformed", causes.plain(Authorization="Bearer nonsense")),
    ("token_forged", causes.forged),
    ("invalid_request", causes.with_body(b'{"messages":[]}')),
    ("overloaded", causes.draining),
]


@pytest.mark.parametrize(("code", "act", "said"), REACHED)
async def test_a_refusal_by_the_script_tells_it(
    redis_url: str, upstream: Upstream, tmp_path: Path, code: str, act: Act, said: dict[str, Any]
) -> None:
    """What is left then: a refusal itself costs nothing, a turn under way counts with its hold."""
    async with till(redis_url, upstream, tmp_path, **said) as (shop, visitor):
        with redis.Redis.from_url(redis_url) as store:
            answer = await act(Scene(shop.server, visitor, store))
        assert answer.code == code
        await eventually(lambda: at_rest(shop.server))
        left = LIMIT - sum(spent for spent, _ in money(redis_url).by_visitor)
    assert told(answer).limit == LIMIT
    if code.startswith("upstream_") or code == "too_many_streams":
        assert told(answer).remaining < left
    else:
        assert told(answer).remaining == left


@pytest.mark.parametrize(("code", "act"), NOT_REACHED)
async def test_a_refusal_before_the_script_tells_nothing(
    redis_url: str, upstream: Upstream, tmp_path: Path, code: str, act: Act
) -> None:
    """Nobody looked."""
    async with till(redis_url, upstream, tmp_path) as (shop, visitor):
        with redis.Redis.from_url(redis_url) as store:
            answer = await act(Scene(shop.server, visitor, store))
    assert answer.code == code
    assert "Keyturn-Budget" not in answer.headers


@pytest.mark.parametrize(("code", "act", "said"), [("", causes.plain(), {}), *REACHED])
async def test_without_a_cap_nothing_is_told(
    redis_url: str, upstream: Upstream, tmp_path: Path, code: str, act: Act, said: dict[str, Any]
) -> None:
    """VISITOR_DAILY_BUDGET_USD=off: neither on answers nor on refusals; the day's is not public."""
    said = {**said, "visitor_daily_budget_usd": "off"}
    async with till(redis_url, upstream, tmp_path, **said) as (shop, visitor):
        with redis.Redis.from_url(redis_url) as store:
            answer = await act(Scene(shop.server, visitor, store))
    assert answer.code == (code or None)
    assert "Keyturn-Budget" not in answer.headers


async def test_own_keys_are_told_nothing(
    redis_url: str, upstream: Upstream, tmp_path: Path
) -> None:
    """Their money is not ours to count; and an empty till of ours does not stop them."""
    said: dict[str, Any] = {"daily_budget_usd": "0", "visitor_daily_budget_usd": "0"}
    async with till(redis_url, upstream, tmp_path, **said) as (_, visitor):
        refused = visitor.body(play(status=401, body={}))
        answers = [
            await visitor.post(visitor.body(), by_bearer()),
            await visitor.post(refused, by_bearer()),
            await visitor.post(own_body(), JSON, CHAT),
        ]
    assert [answer.status for answer in answers] == [200, 401, 200]
    assert all("RateLimit" in answer.headers for answer in answers)
    names = {name for answer in answers for name in answer.headers}
    assert not names & {"Keyturn-Budget", "Keyturn-Max-Output"}
