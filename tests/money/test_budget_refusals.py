"""When the money does not suffice: a shorter answer first, then a refusal that costs no token."""

from pathlib import Path
from typing import Any

import pytest
import redis

from tests.money.budget_stage import CAP, DAY, told, until_midnight, usd
from tests.money.settlement_stage import (
    MAX_OUTPUT,
    PREFIX,
    PRICES,
    Money,
    hold_of,
    money,
    till,
)
from tests.stage import Answer, Upstream, at_rest, eventually
from tests.upstream import play
from tests.wire import asking

LONG = play(words=900)
LEAST = 256  # tokens; a shorter answer is none, unless it was asked for


FIELDS = {"plain": "max_completion_tokens", "unsaid": "max_tokens"}


def asked_upstream(
    model: str = "plain", stream: bool = True, limit: int = MAX_OUTPUT, content: str = LONG
) -> dict[str, Any]:
    """An entry of upstream's books before it is written, so that a cap can be made to measure."""
    body = {
        FIELDS[model]: limit,
        "model": model,
        "messages": [{"role": "user", "content": content}],
        "stream": stream,
    }
    return {"body": {**body, **({"stream_options": {"include_usage": True}} if stream else {})}}


def cap_for(tokens: int, entry: dict[str, Any]) -> int:
    """A cap that pays for the prompt of this and so many tokens, each rounded up by itself."""
    output = -(-tokens * PRICES[entry["body"]["model"]].output // 10**6)
    return hold_of(entry, 0) + output


CAPS = ["daily_budget_usd", "visitor_daily_budget_usd"]


@pytest.mark.parametrize("cap", CAPS)
@pytest.mark.parametrize("model", ["plain", "unsaid"])
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("tokens", [LEAST, MAX_OUTPUT - 1])
async def test_an_answer_is_shortened_to_what_is_left(
    redis_url: str,
    upstream: Upstream,
    tmp_path: Path,
    cap: str,
    model: str,
    stream: bool,
    tokens: int,
) -> None:
    """The visitor is told, upstream is told in the model's own field, and the answer obeys."""
    said: dict[str, Any] = {cap: usd(cap_for(tokens, asked_upstream(model, stream)))}
    async with till(redis_url, upstream, tmp_path, **said) as (shop, visitor):
        answer = await visitor.say(LONG, model=model, stream=stream)
        found, bill = await shop.truth()
        (entry,) = await upstream.books()
    assert answer.status == 200
    assert answer.headers["Keyturn-Max-Output"] == str(tokens)
    assert entry["body"] == asked_upstream(model, stream, tokens)["body"]
    assert entry["output_tokens"] == tokens
    assert found.spent == bill
    if cap == "visitor_daily_budget_usd":
        assert told(answer).remaining == 0


async def test_a_cut_of_a_shortened_answer_costs_what_was_held_for_it(
    redis_url: str, upstream: Upstream, tmp_path: Path
) -> None:
    """The hold is that of the shorter answer, and all that was left."""
    silent = play(silent=True)
    cap = cap_for(300, asked_upstream(content=silent))
    async with till(redis_url, upstream, tmp_path, daily_budget_usd=usd(cap)) as (shop, visitor):
        async with asking(visitor, content=silent):
            await eventually(upstream.books)
            assert money(redis_url).held == cap
        found, _ = await shop.truth()
    assert found.spent == cap


@pytest.mark.parametrize("cap", CAPS)
@pytest.mark.parametrize(
    ("tokens", "asked", "limit"),
    [(MAX_OUTPUT, None, MAX_OUTPUT), (100, 100, 100), (MAX_OUTPUT, 9999, MAX_OUTPUT)],
)
async def test_an_answer_that_fits_is_not_shortened(
    redis_url: str,
    upstream: Upstream,
    tmp_path: Path,
    cap: str,
    tokens: int,
    asked: int | None,
    limit: int,
) -> None:
    """To the µUSD; asking for more than anybody gets is no error, and no shortening."""
    said: dict[str, Any] = {cap: usd(cap_for(tokens, asked_upstream(limit=limit)))}
    more = {"max_tokens": asked} if asked else {}
    async with till(redis_url, upstream, tmp_path, **said) as (shop, visitor):
        answer = await visitor.say(LONG, **more)
        await shop.truth()
        (entry,) = await upstream.books()
    assert answer.status == 200
    assert "Keyturn-Max-Output" not in answer.headers
    assert entry["body"]["max_completion_tokens"] == limit


REFUSAL = {
    "daily_budget_usd": (503, "budget_exhausted"),
    "visitor_daily_budget_usd": (429, "budget_visitor"),
}


@pytest.mark.parametrize("cap", CAPS)
@pytest.mark.parametrize(
    ("tokens", "asked"), [(LEAST - 1, None), (0, None), (99, 100), (0, 1), (LEAST - 1, 300)]
)
async def test_what_does_not_fit_is_refused(
    redis_url: str, upstream: Upstream, tmp_path: Path, cap: str, tokens: int, asked: int | None
) -> None:
    """One token too few, or one µUSD: nothing is written, and nobody asked upstream."""
    said: dict[str, Any] = {cap: usd(cap_for(tokens, asked_upstream(limit=asked or MAX_OUTPUT)))}
    more = {"max_tokens": asked} if asked else {}
    async with till(redis_url, upstream, tmp_path, **said) as (_, visitor):
        answer = await visitor.say(LONG, **more)
        assert (answer.status, answer.code) == REFUSAL[cap]
        assert await upstream.books() == []
    assert money(redis_url) == Money()


def require_budget_refusal(answer: Answer, before: int, *, own_keys: bool) -> None:
    """When it is over, that nothing was spent, and what to do meanwhile; no SDK tries again."""
    wait = int(answer.headers["Retry-After"])
    assert before >= wait >= until_midnight() or until_midnight() > before
    assert 1 <= wait <= DAY
    assert answer.headers["x-should-retry"] == "false"
    assert (answer.token, answer.json["chain"]) == (None, "kept")
    said = answer.json["detail"]
    assert "midnight UTC" in said
    assert ("own API key" in said) is own_keys
    assert said in answer.json["error"]["message"]
    kind = {429: "rate_limit_error", 503: "server_error"}[answer.status]
    assert answer.json["error"]["type"] == kind


@pytest.mark.parametrize("byok", ["on", "off"])
async def test_the_token_is_good_again_when_the_cap_is_raised(
    redis_url: str, upstream: Upstream, tmp_path: Path, byok: str
) -> None:
    """The day's money is gone in the middle of a chain: the operator gives more, and it goes on."""
    async with till(redis_url, upstream, tmp_path, byok=byok) as (shop, visitor):
        await visitor.say()
        token, before = visitor.token, until_midnight()
        with redis.Redis.from_url(redis_url) as store:
            store.hset(PREFIX + "control", "cap", str(money(redis_url).spent + 1))
            for _ in range(2):
                answer = await visitor.say()
                assert (answer.status, answer.code) == (503, "budget_exhausted")
                require_budget_refusal(answer, before, own_keys=byok == "on")
            store.hset(PREFIX + "control", "cap", str(CAP))
        assert visitor.token == token
        assert (await visitor.say()).status == 200
        await shop.truth()
    assert visitor.token != token


@pytest.mark.parametrize("byok", ["on", "off"])
async def test_a_visitor_at_their_cap_does_not_stop_the_others(
    redis_url: str, upstream: Upstream, tmp_path: Path, byok: str
) -> None:
    """Their budget is their own."""
    said: dict[str, Any] = {"visitor_daily_budget_usd": usd(1000), "byok": byok}
    said["trusted_proxies"] = "127.0.0.1"
    async with till(redis_url, upstream, tmp_path, **said) as (shop, visitor):
        first, second = {"X-Forwarded-For": "192.0.2.1"}, {"X-Forwarded-For": "192.0.2.2"}
        visitor.extra = first
        assert (await visitor.say(play(prompt=2400))).status == 200
        await eventually(lambda: at_rest(shop.server))
        before, kept = until_midnight(), visitor.token
        answer = await visitor.say()
        assert (answer.status, answer.code) == (429, "budget_visitor")
        require_budget_refusal(answer, before, own_keys=byok == "on")
        assert told(answer).remaining == 1000 - money(redis_url).spent
        visitor.extra, visitor.token = second, None
        assert (await visitor.say()).status == 200
        with redis.Redis.from_url(redis_url) as store:
            for key in store.scan_iter(PREFIX + "spend:*:*"):
                store.delete(key)  # as midnight does
        visitor.extra, visitor.token = first, kept
        assert (await visitor.say()).status == 200


@pytest.mark.parametrize("cap", CAPS)
@pytest.mark.parametrize("price", ["0", "0.4"])
async def test_a_cap_of_nothing_admits_nobody(
    redis_url: str, upstream: Upstream, tmp_path: Path, cap: str, price: str
) -> None:
    """Not even a turn that costs nothing."""
    prices = tmp_path / "free.toml"
    fields = "".join(f"{name} = {price}\n" for name in ("input", "cached_input", "output"))
    prices.write_text(f"[models.plain]\n{fields}")
    said: dict[str, Any] = {cap: "0", "prices_file": prices, "allowed_models": "plain"}
    async with till(redis_url, upstream, tmp_path, **said) as (_, visitor):
        answer = await visitor.say()
        assert (answer.status, answer.code) == REFUSAL[cap]
        assert await upstream.books() == []


async def test_the_days_refusal_comes_before_the_visitors(
    redis_url: str, upstream: Upstream, tmp_path: Path
) -> None:
    """Where neither has money left, another visitor would not get in either."""
    said: dict[str, Any] = dict.fromkeys(CAPS, "0.000001")
    async with till(redis_url, upstream, tmp_path, **said) as (_, visitor):
        answer = await visitor.say()
    assert (answer.status, answer.code) == REFUSAL["daily_budget_usd"]


async def test_a_pause_keeps_the_token_and_says_what_is_left(
    redis_url: str, upstream: Upstream, tmp_path: Path
) -> None:
    """The operator stops all admissions for a while: the chain goes on afterwards."""
    said: dict[str, Any] = {"visitor_daily_budget_usd": usd(CAP)}
    async with till(redis_url, upstream, tmp_path, **said) as (shop, visitor):
        await visitor.say()
        found, _ = await shop.truth()
        token = visitor.token
        with redis.Redis.from_url(redis_url) as store:
            store.hset(PREFIX + "control", "paused", "1")
            answer = await visitor.say()
            assert (answer.status, answer.code) == (503, "paused")
            assert (answer.token, answer.json["chain"]) == (None, "kept")
            assert told(answer).remaining == CAP - found.spent
            assert answer.headers["x-should-retry"] == "false"
            assert money(redis_url) == found
            store.hdel(PREFIX + "control", "paused")
        assert visitor.token == token
        assert (await visitor.say()).status == 200
