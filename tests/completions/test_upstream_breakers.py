"""The breakers before upstream: a server that keeps failing is not asked for a while."""

import time

import pytest

from security.breaker import Breaker
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
from tests.upstream import play
from tests.wire import free_port

OWN_KEY = {"Authorization": "Bearer sk-visitor-0123456789abcdef"}
BROKEN = play(status=500, body={})
FAILURES = 5


async def fail(visitor: Visitor, times: int) -> None:
    """Turns that fail upstream."""
    for _ in range(times):
        assert (await visitor.say(BROKEN)).code == "upstream_unavailable"


def operators(server: Server) -> Breaker:
    """The breaker before the operator's upstream."""
    return server.keyturn.gate._upstream


def must_be_overloaded(answer: Answer) -> None:
    """The answer says to come back with the same token."""
    assert (answer.status, answer.code) == (503, "overloaded"), answer.body
    assert answer.json["chain"] == "kept"
    assert answer.token is None
    assert int(answer.headers["Retry-After"]) >= 1
    assert "x-should-retry" not in answer.headers


async def test_a_failing_upstream_is_left_alone_and_the_token_kept(
    visitor: Visitor, server: Server, upstream: Upstream
) -> None:
    """After five failures nobody asks and no token is spent; one probe later all is well."""
    await fail(visitor, FAILURES)
    token = visitor.token
    for _ in range(3):
        must_be_overloaded(await visitor.say())
    assert len(await upstream.books()) == FAILURES
    assert visitor.token == token
    assert await at_rest(server)
    await eventually(lambda: admitted(visitor))
    assert len(await upstream.books()) == FAILURES + 1
    await fail(visitor, FAILURES - 1)
    assert (await visitor.say()).status == 200


async def admitted(visitor: Visitor) -> bool:
    """Whether a turn succeeds."""
    return (await visitor.say()).status == 200


async def test_a_probe_is_not_used_up_by_those_who_are_refused(
    visitor: Visitor, server: Server, upstream: Upstream
) -> None:
    """A used token, shown when a probe is due, does not keep the breaker open for the others."""
    await visitor.say()
    used = visitor.token
    await visitor.say()
    visitor.token = None  # another chain: the used token may cost its own
    await fail(visitor, FAILURES)
    fresh = visitor.token
    await eventually(lambda: pause_is_over(server))
    visitor.token = used
    assert (await visitor.say()).code == "token_reused"
    visitor.token = fresh
    assert (await visitor.say()).status == 200


async def pause_is_over(server: Server) -> bool:
    """Whether the next caller may probe."""
    return not operators(server).is_open


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422, 429])
async def test_an_upstream_that_answers_is_there(
    visitor: Visitor, upstream: Upstream, status: int
) -> None:
    """Refusals never open the breaker, however many."""
    for _ in range(FAILURES + 2):
        await visitor.say(play(status=status, body={}))
    assert (await visitor.say()).status == 200
    assert len(await upstream.books()) == FAILURES + 3


async def test_a_success_starts_the_count_again(visitor: Visitor, upstream: Upstream) -> None:
    """Only failures in a row count."""
    for _ in range(2):
        await fail(visitor, FAILURES - 1)
        assert (await visitor.say()).status == 200


@pytest.mark.parametrize("theirs_is_down", [True, False])
async def test_each_upstream_has_its_own_breaker(
    redis_url: str, upstream: Upstream, theirs_is_down: bool
) -> None:
    """Where own keys go may be down without a word to the operator's visitors, and vice versa."""
    down = f"http://127.0.0.1:{free_port()}/v1"
    settings = settings_with(
        redis_url=redis_url,
        openai_base_url=upstream.url if theirs_is_down else down,
        byok_base_url=down if theirs_is_down else upstream.url,
    )
    bad, good = (OWN_KEY, {}) if theirs_is_down else ({}, OWN_KEY)
    async with serving(settings) as server, visiting(server) as visitor:
        for _ in range(FAILURES):
            assert (await visitor.say(headers=bad)).code == "upstream_unavailable"
        assert (await visitor.say(headers=bad)).code == "overloaded"
        assert (await visitor.say(headers=good)).status == 200


async def test_an_open_breaker_answers_at_once(visitor: Visitor) -> None:
    """Nobody waits for an upstream that is not asked: neither for what it holds back for a while,
    as the first five did, nor for its time to be asked again."""
    held = play(status=500, body={}, hold_ms=300)
    started = time.monotonic()
    for _ in range(FAILURES):
        assert (await visitor.say(held)).code == "upstream_unavailable"
    failed = time.monotonic()
    for _ in range(FAILURES):
        must_be_overloaded(await visitor.say(held))
    assert time.monotonic() - failed < (failed - started) / 2
