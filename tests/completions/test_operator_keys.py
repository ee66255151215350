"""Several operator's keys: a turn that one of them is refused for is asked once more by another."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pydantic import SecretStr

from completions.operator_keys import OperatorKeys
from tests.completions.rows import error, must_be
from tests.stage import (
    CHAT,
    PATIENT,
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

FIRST, SECOND, THIRD = "sk-first-0123456789abcdef", "sk-second-0123456789abcdef", "sk-third-0123"
OWN = {"Authorization": "Bearer sk-visitor-0123456789abcdef"}
REVOKED: dict[str, Any] = {"status": 401, "body": error("invalid_api_key")}
SPENT: dict[str, Any] = {"status": 429, "body": error("insufficient_quota")}
BUSY: dict[str, Any] = {
    "status": 429,
    "body": error("rate_limit_exceeded"),
    "headers": {"Retry-After": "20"},
}


@asynccontextmanager
async def two_keys(
    redis_url: str, upstream: Upstream, keys: str = f"{FIRST},{SECOND}", **said: Any
) -> AsyncIterator[tuple[Server, Visitor]]:
    """Keyturn with these keys, and a visitor."""
    urls = {"openai_base_url": upstream.url, "byok_base_url": upstream.url}
    settings = settings_with(redis_url=redis_url, openai_api_key=keys, **urls, **said)
    async with serving(settings) as server, visiting(server) as visitor:
        yield server, visitor


async def asked_by(upstream: Upstream) -> list[str]:
    """The key of each POST that upstream got."""
    return [entry["authorization"].removeprefix("Bearer ") for entry in await upstream.books()]


async def spent(server: Server) -> tuple[int, int]:
    """What is spent and held today, in µUSD."""
    await eventually(lambda: at_rest(server))
    keys = [str(key) for key in await server.keyturn.store.keys("*:spend:*")]
    (day,) = [key[2:-1] for key in keys if key.count(":") == 3]
    money = await server.keyturn.store.hmget(day, "spent", "held")
    return int(money[0] or 0), int(money[1] or 0)


@pytest.mark.parametrize("path", [CHAT, RESPONSES])
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("refused", [REVOKED, SPENT, BUSY], ids=["401", "no quota", "429"])
async def test_a_refused_key_costs_no_turn(
    redis_url: str,
    upstream: Upstream,
    caplog: pytest.LogCaptureFixture,
    refused: dict[str, Any],
    stream: bool,
    path: str,
) -> None:
    """The next one answers at once, is asked first from then on, and the log names a place."""
    await upstream.answer_keys(**{FIRST: refused})
    async with two_keys(redis_url, upstream) as (_, visitor):
        visitor.path = path
        answers = [await visitor.say(stream=stream) for _ in range(3)]
    assert [answer.status for answer in answers] == [200] * 3
    assert await asked_by(upstream) == [FIRST, SECOND, SECOND, SECOND]
    seconds = 20 if refused is BUSY else 300
    (line,) = [each for each in caplog.messages if "refused" in each]
    assert f"key 1 of 2 in OPENAI_API_KEY status={refused['status']}" in line
    assert f"comes last for {seconds} s" in line
    assert FIRST not in caplog.text
    assert SECOND not in caplog.text


@pytest.mark.parametrize("keys", [[FIRST], [FIRST, SECOND]], ids=["one key", "two keys"])
async def test_a_key_is_asked_once_though_it_may_be_at_once(
    redis_url: str, upstream: Upstream, keys: list[str]
) -> None:
    """Retry-After: 0 is said of another turn: this one is asked by another key, or by none."""
    await upstream.answer_keys(**{FIRST: {**BUSY, "headers": {"Retry-After": "0"}}})
    async with two_keys(redis_url, upstream, keys=",".join(keys)) as (_, visitor):
        assert (await visitor.say()).status == (200 if SECOND in keys else 503)
    assert await asked_by(upstream) == keys


async def test_the_control_with_one_key(redis_url: str, upstream: Upstream) -> None:
    """Without another key the same refusal is the visitor's, and upstream is asked once."""
    await upstream.answer_keys(**{FIRST: REVOKED})
    async with two_keys(redis_url, upstream, keys=FIRST) as (_, visitor):
        await must_be((502, "upstream_rejected"), await visitor.say())
    assert await asked_by(upstream) == [FIRST]


@pytest.mark.parametrize("status", [400, 403, 404, 408, 500, 503, 302])
async def test_nothing_else_is_repeated(redis_url: str, upstream: Upstream, status: int) -> None:
    """What is no refusal of a key may have been billed, or will be refused of every key."""
    await upstream.answer_keys(**{FIRST: {"status": status, "body": error()}})
    async with two_keys(redis_url, upstream) as (_, visitor):
        assert (await visitor.say()).status == 502
    assert await asked_by(upstream) == [FIRST]


@pytest.mark.parametrize(
    ("first", "second", "row"),
    [
        (REVOKED, REVOKED, (502, "upstream_rejected")),
        (BUSY, SPENT, (503, "upstream_rate_limited")),
        (REVOKED, BUSY, (503, "upstream_rate_limited")),
        (BUSY, REVOKED, (503, "upstream_rate_limited")),
        (REVOKED, {"status": 500, "body": {}}, (502, "upstream_unavailable")),
    ],
)
async def test_where_both_are_refused_the_row_is_what_it_was(
    redis_url: str,
    upstream: Upstream,
    first: dict[str, Any],
    second: dict[str, Any],
    row: tuple[int, str],
) -> None:
    """The token of the next turn comes along, nothing is spent, and no third POST is made."""
    await upstream.answer_keys(**{FIRST: first, SECOND: second})
    keys = f"{FIRST},{SECOND},{THIRD}"
    async with two_keys(redis_url, upstream, keys=keys) as (server, visitor):
        await must_be(row, await visitor.say())
        assert await asked_by(upstream) == [FIRST, SECOND]
        assert await spent(server) == (0, 0)
        row_of_next = (await visitor.say()).code
    assert row_of_next == ("upstream_unavailable" if second["status"] == 500 else None)


async def test_with_all_set_back_each_turn_asks_once(redis_url: str, upstream: Upstream) -> None:
    """The key that is first good again is asked, and no other after it."""
    await upstream.answer_keys(**{FIRST: REVOKED, SECOND: BUSY})
    async with two_keys(redis_url, upstream) as (_, visitor):
        for _ in range(3):
            await must_be((503, "upstream_rate_limited"), await visitor.say())
    assert await asked_by(upstream) == [FIRST, SECOND, SECOND, SECOND]


@pytest.mark.parametrize("dead", [1, 2, 3, 4, 5])
async def test_dead_keys_cost_a_failed_turn_for_every_two(
    redis_url: str, upstream: Upstream, dead: int
) -> None:
    """Of turns one after another; each asks two keys at most, and no dead one is asked again."""
    revoked = [f"sk-dead-{number}-0123456789abcdef" for number in range(dead)]
    await upstream.answer_keys(**dict.fromkeys(revoked, REVOKED))
    keys = ",".join([*revoked, FIRST])
    async with two_keys(redis_url, upstream, keys=keys) as (_, visitor):
        codes = [(await visitor.say()).code for _ in range(4)]
    failed = dead // 2
    assert codes == ["upstream_rejected"] * failed + [None] * (4 - failed)
    assert await asked_by(upstream) == [*revoked, *[FIRST] * (4 - failed)]


async def test_a_repeated_turn_is_paid_once(redis_url: str, upstream: Upstream) -> None:
    """One hold, settled by what the second answer says; the refused attempt costs nothing."""
    async with two_keys(redis_url, upstream) as (server, visitor):
        assert (await visitor.say(play(prompt=1000, words=50))).status == 200
        once, held = await spent(server)
        assert (once > 0, held) == (True, 0)
        await upstream.answer_keys(**{FIRST: REVOKED})
        assert (await visitor.say(play(prompt=1000, words=50))).status == 200
        assert await spent(server) == (2 * once, 0)
    assert await asked_by(upstream) == [FIRST, FIRST, SECOND]


async def test_a_repeated_turn_without_an_answer_is_held_in_full(
    redis_url: str, upstream: Upstream
) -> None:
    """What the first key was refused does not make the second attempt free."""
    async with two_keys(redis_url, upstream, max_stream_seconds=1) as (server, visitor):
        assert (await visitor.say(play(silent=True))).code == "upstream_timeout"
        whole, _ = await spent(server)
        assert whole > 0
        await upstream.answer_keys(**{FIRST: REVOKED})
        assert (await visitor.say(play(silent=True))).code == "upstream_timeout"
        assert await spent(server) == (2 * whole, 0)


@pytest.mark.parametrize("path", [CHAT, RESPONSES])
async def test_an_own_key_is_asked_once_and_alone(
    redis_url: str, upstream: Upstream, path: str
) -> None:
    """No operator's key stands in for a visitor's, and none of his is shown twice."""
    own = OWN["Authorization"].removeprefix("Bearer ")
    await upstream.answer_keys(**{own: REVOKED})
    async with two_keys(redis_url, upstream) as (_, visitor):
        visitor.path = path
        answer = await visitor.say(headers=OWN)
        assert (answer.status, answer.code) == (401, "byok_key_rejected")
        await upstream.answer_keys(**{own: BUSY})
        assert (await visitor.say(headers=OWN)).code == "upstream_rate_limited"
    assert await asked_by(upstream) == [own, own]


async def test_a_crowd_is_served_and_the_operator_told_once(
    redis_url: str, upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    """Thirty turns at once by a key that is revoked: all are answered, one line is written."""
    await upstream.answer_keys(**{FIRST: {**REVOKED, "hold_ms": 50}})

    async def one(server: Server, number: int) -> str | None:
        address = {"X-Forwarded-For": f"203.0.113.{number}"}
        async with visiting(server, extra=address) as visitor:
            return (await visitor.say()).code

    patient: dict[str, Any] = {**PATIENT, "trusted_proxies": "127.0.0.1"}
    async with two_keys(redis_url, upstream, **patient) as (server, _):
        with caplog.at_level(logging.WARNING):
            codes = await asyncio.gather(*(one(server, number) for number in range(30)))
        assert server.keyturn.gate._upstream.try_enter()
    assert codes == [None] * 30
    assert len([each for each in caplog.messages if "refused key" in each]) == 1


@pytest.mark.parametrize("fresh", [[SECOND], [FIRST, SECOND]], ids=["alone", "beside it"])
async def test_a_turn_under_way_is_asked_again_by_the_key_that_came_meanwhile(
    redis_url: str, upstream: Upstream, fresh: list[str]
) -> None:
    """Who began by the old key and is refused is not lost, whether it is still named or not."""
    await upstream.answer_keys(**{FIRST: {**REVOKED, "hold_ms": 500}})
    async with two_keys(redis_url, upstream, keys=FIRST) as (server, visitor):
        turn = asyncio.create_task(visitor.say())
        await eventually(lambda: asked_by(upstream))
        server.keyturn.upstream.keys.replace([SecretStr(key) for key in fresh])
        assert (await turn).status == 200
    assert await asked_by(upstream) == [FIRST, SECOND]


class Clock:
    """A clock that is set by hand."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def some_keys(clock: Clock) -> OperatorKeys:
    """Three of them."""
    return OperatorKeys([SecretStr(key) for key in (FIRST, SECOND, THIRD)], clock=clock)


def test_a_key_comes_last_for_a_while_and_has_its_turn_again() -> None:
    """In the operator's order; with all of them set back the one that is so the shortest."""
    clock = Clock()
    keys = some_keys(clock)
    first, second, third = keys
    assert keys.set_back(first, 300)
    assert not keys.set_back(first, 20), "no news, and no shorter"
    assert keys.first is keys.untried is second
    keys.set_back(second, 20)
    keys.set_back(third, 60)
    assert keys.first is second
    assert not keys.untried
    clock.now += 61
    assert keys.first is keys.untried is second
    clock.now += 240
    assert keys.first is first


def test_replaced_keys_are_as_good_as_new() -> None:
    """Who comes back from a key that is gone changes nothing; one that is named anew is known."""
    keys = some_keys(Clock())
    old, *_ = keys
    keys.set_back(old, 300)
    keys.replace([SecretStr(SECOND)])
    assert keys.set_back(old, 300) is None
    assert keys.untried
    assert (len(keys), keys.untried.place, keys.untried.of) == (1, 1, 1)
    keys.replace([SecretStr(SECOND), SecretStr(FIRST)])
    known = keys.set_back(old, 300)
    assert known
    assert (known.place, known.of) == (2, 2)
    keys.replace([])
    assert keys.first is None
