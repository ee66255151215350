"""A visitor's own key on POST /v1/responses: any client with a static key, and nothing of ours."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from openai import APIError, AsyncOpenAI

from tests.own_key_stage import OWN_KEY, by_bearer, complete
from tests.stage import (
    OPERATORS_KEY,
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

MODEL = "own-model"


@pytest.fixture
def operators(other_upstream: Upstream) -> Upstream:
    """The operator's own upstream, which no visitor's key may see."""
    return other_upstream


@pytest.fixture
async def server(redis_url: str, upstream: Upstream, operators: Upstream) -> AsyncIterator[Server]:
    """Keyturn with an upstream for each mode, and a visitor's name for the operator's."""
    settings = settings_with(
        redis_url=redis_url,
        openai_base_url=operators.url,
        byok_base_url=upstream.url,
        byok_models=f"gpt-4o-mini,{MODEL}",
        safety_identifier="on",
        daily_budget_usd="0",  # which is none of theirs
    )
    async with serving(settings) as server:
        yield server


@pytest.fixture
async def visitor(server: Server) -> AsyncIterator[Visitor]:
    """A visitor who chats by this API."""
    async with visiting(server, path=RESPONSES) as visitor:
        yield visitor


@pytest.mark.parametrize("stream", [True, False])
async def test_no_header_of_ours_is_needed(
    visitor: Visitor, upstream: Upstream, operators: Upstream, stream: bool
) -> None:
    """A key is enough; it goes to its own upstream, unstored and without a name for its owner."""
    answer = await complete(visitor, "hi", stream=stream, model=MODEL)
    assert (answer.status, answer.text) == (200, "hi hi hi ")
    assert answer.token is None
    assert "Keyturn-Budget" not in answer.headers
    assert answer.headers["RateLimit"]
    (entry,) = await upstream.books()
    assert (entry["path"], entry["authorization"]) == (RESPONSES, f"Bearer {OWN_KEY}")
    assert (entry["body"]["store"], entry["body"]["max_output_tokens"]) == (False, 1024)
    assert "safety_identifier" not in entry["body"]
    assert OPERATORS_KEY not in str(entry)
    assert await operators.books() == []


async def test_the_openai_sdk_works_with_a_static_key(server: Server) -> None:
    """The SDK needs nothing but our address, and raises what breaks in the middle."""
    async with AsyncOpenAI(api_key=OWN_KEY, base_url=f"{server.url}/v1", max_retries=0) as client:
        whole = await client.responses.create(model=MODEL, input="hi")
        assert whole.output_text == "hi hi hi "
        async with client.responses.stream(model=MODEL, input="hi") as stream:
            assert (await stream.get_final_response()).output_text == "hi hi hi "
        broken = await client.responses.create(model=MODEL, input=play(error_after=1), stream=True)
        with pytest.raises(APIError, match="cannot be reached"):
            [event async for event in broken]


NOT_ASKED: list[tuple[dict[str, Any], str]] = [
    ({"model": "gpt-4.1-mini"}, "invalid_request"),
    ({"input": [{"role": "user", "content": "a"}] * 51}, "invalid_request"),
    ({"input": "a" * 10_001}, "invalid_request"),
    ({"input": "a\0"}, "invalid_request"),
    ({"input": []}, "invalid_request"),
    ({"store": True}, "unsupported_parameter"),
    ({"background": True}, "unsupported_parameter"),
    ({"previous_response_id": "resp_1"}, "unsupported_parameter"),
    ({"tools": [{"type": "web_search"}]}, "unsupported_parameter"),
    ({"user": "x" * 300_000}, "payload_too_large"),
]


async def test_every_limit_of_the_body_holds(visitor: Visitor, upstream: Upstream) -> None:
    """Who pays does not change what may be asked."""
    for changed, code in NOT_ASKED:
        assert (await complete(visitor, **{"model": MODEL, **changed})).code == code, changed
    assert await upstream.books() == []


@pytest.mark.parametrize("stream", [True, False])
async def test_a_refusal_of_upstream_has_no_chain(visitor: Visitor, stream: bool) -> None:
    """The same rows of the table as with the operator's key, but for chain and token."""
    rows: list[tuple[dict[str, Any], int, str]] = [
        ({"status": 401, "body": {}}, 401, "byok_key_rejected"),
        ({"status": 429, "body": {}}, 503, "upstream_rate_limited"),
        ({"status": 500, "body": {}}, 502, "upstream_unavailable"),
    ]
    for script, status, code in rows:
        answer = await complete(visitor, play(**script), stream=stream, model=MODEL)
        assert (answer.status, answer.code) == (status, code)
        assert (answer.json["chain"], answer.token) == ("none", None)


async def test_a_failure_in_the_middle_is_one_event(visitor: Visitor) -> None:
    """A stream that breaks ends with one error event, and with nothing of upstream's."""
    for script in ({"reset_after": 1}, {"error_after": 1}, {"finish": False}):
        answer = await complete(visitor, play(**script), model=MODEL)
        assert answer.failure == "upstream_unavailable"
        assert answer.body.count(b"event: error") == 1
        assert b"secret text" not in answer.body


async def test_a_hang_up_closes_upstream(
    server: Server, visitor: Visitor, upstream: Upstream
) -> None:
    """Who leaves stops the costs: upstream is closed within half a second."""
    turn = asyncio.create_task(complete(visitor, play(hang_after=1), model=MODEL))

    async def running() -> bool:
        return [entry["chunks"] for entry in await upstream.books()] == [1]

    async def closed() -> bool:
        return bool((await upstream.books())[0]["ended"] == "closed")

    await eventually(running)
    turn.cancel()
    await eventually(closed, limit=0.5)
    await eventually(lambda: at_rest(server))


async def test_a_malformed_key_never_becomes_the_operators(
    visitor: Visitor, upstream: Upstream, operators: Upstream
) -> None:
    """Whatever stands where the key should: it is refused, and neither upstream is asked."""
    for key in ("", "sk-", "sk-a b", "sk-é", "SK-" + "a" * 40, "keyturn sk-a"):
        headers = visitor.headers(Authorization=f"Bearer {key}".encode().decode("latin-1"))
        assert (await visitor.post(visitor.body(model=MODEL), headers)).status == 401, key
    assert await upstream.books() == await operators.books() == []


async def test_own_keys_may_be_switched_off(redis_url: str, upstream: Upstream) -> None:
    """On this route as on the other; and a foreign page may not use them either."""
    urls = {"redis_url": redis_url, "byok_base_url": upstream.url}
    async with (
        serving(settings_with(**urls, byok="off")) as server,
        visiting(server, path=RESPONSES) as visitor,
    ):
        assert (await complete(visitor)).code == "byok_disabled"
    async with (
        serving(settings_with(**urls)) as server,
        visiting(server, path=RESPONSES) as visitor,
    ):
        for origin, status in (("https://evil.example", 403), ("https://page.example", 200)):
            answer = await visitor.post(visitor.body(), by_bearer(Origin=origin))
            assert answer.status == status
    assert len(await upstream.books()) == 1
