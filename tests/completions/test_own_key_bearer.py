"""`Authorization: Bearer sk-...` on /v1: any OpenAI client with a key of its own."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from openai import APIError, AsyncOpenAI, PermissionDeniedError

from tests.own_key_stage import COMPLETIONS, JSON, OWN_KEY, by_bearer, complete
from tests.stage import (
    Server,
    Upstream,
    Visitor,
    eventually,
    head,
    send_raw,
    serving,
    settings_with,
    visiting,
)
from tests.upstream import play


@pytest.fixture
def operators(other_upstream: Upstream) -> Upstream:
    """The operator's own upstream, which no visitor's key may see."""
    return other_upstream


@pytest.fixture
async def server(redis_url: str, upstream: Upstream, operators: Upstream) -> AsyncIterator[Server]:
    """Keyturn with an upstream for each mode."""
    settings = settings_with(
        redis_url=redis_url,
        openai_base_url=operators.url,
        byok_base_url=upstream.url,
        byok_models="gpt-4o-mini,own-model",
    )
    async with serving(settings) as server:
        yield server


@pytest.mark.parametrize("stream", [True, False])
async def test_no_header_of_ours_is_needed(
    visitor: Visitor, upstream: Upstream, operators: Upstream, stream: bool
) -> None:
    """A key is enough: no timestamp, no fingerprint, no token, neither asked for nor given."""
    answer = await complete(visitor, "hi", stream=stream, model="own-model")
    assert (answer.status, answer.text) == (200, "hi hi hi ")
    assert answer.token is None
    assert "Keyturn-Budget" not in answer.headers
    assert answer.headers["RateLimit"]
    (entry,) = await upstream.books()
    assert entry["authorization"] == f"Bearer {OWN_KEY}"
    assert entry["body"]["max_completion_tokens"] == 1024
    assert await operators.books() == []


async def test_the_openai_sdk_works_with_a_static_key(server: Server) -> None:
    """The SDK needs nothing but our address, and reads a refusal as what it is."""
    async with AsyncOpenAI(api_key=OWN_KEY, base_url=f"{server.url}/v1", max_retries=0) as client:
        message: Any = {"role": "user", "content": "hi"}
        model = "own-model"
        whole = await client.chat.completions.create(model=model, messages=[message])
        assert whole.choices[0].message.content == "hi hi hi "
        chunks = await client.chat.completions.create(model=model, messages=[message], stream=True)
        text = [chunk.choices[0].delta.content or "" async for chunk in chunks]
        assert "".join(text) == "hi hi hi "
        message["content"] = play(error_after=1)
        chunks = await client.chat.completions.create(model=model, messages=[message], stream=True)
        with pytest.raises(APIError, match="cannot be reached"):
            [chunk async for chunk in chunks]


async def test_the_sdk_reads_that_keys_are_not_taken(redis_url: str) -> None:
    """Where own keys are off the SDK raises what it raises for a forbidden request."""
    async with (
        serving(settings_with(redis_url=redis_url, byok="off")) as server,
        AsyncOpenAI(api_key=OWN_KEY, base_url=f"{server.url}/v1") as client,
    ):
        with pytest.raises(PermissionDeniedError) as refused:
            await client.chat.completions.create(model="m", messages=[])
    assert refused.value.code == "byok_disabled"


@pytest.mark.parametrize("model", ["gpt-4.1-mini", "gpt-3.5-turbo", "gpt-5", ""])
async def test_the_models_are_those_for_own_keys(
    visitor: Visitor, upstream: Upstream, model: str
) -> None:
    """BYOK_MODELS counts here, not the operator's list."""
    answer = await complete(visitor, model=model)
    assert (answer.status, answer.json["param"]) == (422, "model")
    assert await upstream.books() == []


async def test_without_a_model_one_of_the_list_is_asked(
    visitor: Visitor, upstream: Upstream
) -> None:
    """The operator's default is not on the list, so its first model answers, on both routes."""
    await complete(visitor)
    body = json.dumps({"user_message": "hi", "api_key": OWN_KEY}).encode()
    assert (await visitor.post(body, JSON, "/api/chat")).status == 200
    assert [entry["body"]["model"] for entry in await upstream.books()] == ["gpt-4o-mini"] * 2


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"messages": [{"role": "user", "content": "a"}] * 51}, "invalid_request"),
        ({"messages": [{"role": "user", "content": "a" * 10_001}]}, "invalid_request"),
        ({"messages": [{"role": "user", "content": "a\0"}]}, "invalid_request"),
        ({"messages": []}, "invalid_request"),
        ({"n": 2}, "unsupported_parameter"),
        ({"tools": []}, "unsupported_parameter"),
        ({"logprobs": True}, "unsupported_parameter"),
        ({"user": "x" * 300_000}, "payload_too_large"),
    ],
)
async def test_every_limit_of_the_body_holds(
    visitor: Visitor, upstream: Upstream, changed: dict[str, Any], code: str
) -> None:
    """Who pays does not change what may be asked."""
    assert (await complete(visitor, **changed)).code == code
    assert await upstream.books() == []


async def test_more_output_than_allowed_is_not_asked_for(
    visitor: Visitor, upstream: Upstream
) -> None:
    """MAX_OUTPUT_TOKENS holds; less may be asked for."""
    for asked in (50, 100_000):
        await complete(visitor, max_tokens=asked)
    limits = [entry["body"]["max_completion_tokens"] for entry in await upstream.books()]
    assert limits == [50, 1024]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("script", "status", "code"),
    [
        ({"status": 401, "body": {}}, 401, "byok_key_rejected"),
        ({"status": 429, "body": {}}, 503, "upstream_rate_limited"),
        ({"status": 500, "body": {}}, 502, "upstream_unavailable"),
        ({"status": 302, "body": {}, "headers": {"Location": "/x"}}, 502, "upstream_unavailable"),
        (
            {"status": 400, "body": {"error": {"code": "context_length_exceeded"}}},
            400,
            "upstream_rejected",
        ),
        ({"status": 400, "body": {"error": {"code": ["?"]}}}, 502, "upstream_rejected"),
    ],
)
async def test_a_refusal_of_upstream_has_no_chain(
    visitor: Visitor, stream: bool, script: dict[str, Any], status: int, code: str
) -> None:
    """The same rows of the table as with the operator's key, but for chain and token."""
    answer = await complete(visitor, play(**script), stream=stream)
    assert (answer.status, answer.code) == (status, code)
    assert answer.json["chain"] == "none"
    assert answer.token is None


async def test_a_failure_in_the_middle_is_one_frame(visitor: Visitor) -> None:
    """A stream that breaks ends with one error frame, with no [DONE] and no text of upstream's."""
    for script in ({"reset_after": 1}, {"error_after": 1}, {"finish": False, "done": False}):
        answer = await complete(visitor, play(**script))
        *_, last, end = answer.body.split(b"\n\n")
        assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == "upstream_unavailable"
        assert end == b""
        assert b"[DONE]" not in answer.body
        assert b"secret text" not in answer.body


async def test_a_hang_up_closes_upstream(visitor: Visitor, upstream: Upstream) -> None:
    """Who leaves stops the costs: upstream is closed within half a second."""
    turn = asyncio.create_task(complete(visitor, play(hang_after=1)))

    async def running() -> bool:
        return [entry["chunks"] for entry in await upstream.books()] == [1]

    async def closed() -> bool:
        return bool((await upstream.books())[0]["ended"] == "closed")

    await eventually(running)
    turn.cancel()
    await eventually(closed, limit=0.5)


MALFORMED = [
    b"",
    b"Bearer",
    b"Bearer ",
    b"Bearer sk-",
    b"Bearer  sk-two-blanks",
    b"Bearer sk-a b",
    b"Bearer sk-tab\there",
    b"Bearer sk-\xe9\xfc",
    "Bearer sk-кириллица".encode(),
    b"Bearer sk-\x01",
    b"Bearer sk-\x7f",
    b"Bearer sk-nul\x00",
    b"Bearer sk-cr\rX-Evil: 1",
    b"Bearer sk-lf\nsk-b",
    b"Bearer sk-folded\r\n sk-b",
    b"Bearer SK-" + b"a" * 40,
    b"sk-" + b"a" * 40,
    b"Basic sk-" + b"a" * 40,
    b"Bearer keyturn sk-a",
    b"Bearer keyturn,sk-a",
    b"Bearer sk-" + b"a" * 510,
    b"Bearer sk-" + b"a" * 10_000,
    b"Bearer sk-" + b"a" * 1_000_000,
]


@pytest.mark.parametrize("value", MALFORMED, ids=lambda value: repr(value[:24]))
async def test_a_malformed_key_never_becomes_the_operators(
    server: Server, upstream: Upstream, operators: Upstream, visitor: Visitor, value: bytes
) -> None:
    """Whatever stands where the key should: it is refused, and neither upstream is asked."""
    body = visitor.body(model="gpt-4o-mini")
    headers = {**visitor.headers(), "Content-Length": str(len(body)), "Connection": "close"}
    request = head("POST", COMPLETIONS, headers, "Authorization: HERE")
    answer = await send_raw(server, request.replace(b"HERE", value) + body)
    assert answer.status in (400, 401, 431)
    assert await upstream.books() == await operators.books() == []
    answer = await send_raw(server, request.replace(b"HERE", b"Bearer keyturn") + body)
    assert answer.status == 200, "the control: but for its key the request was good"
    assert len(await operators.books()) == 1


async def test_two_keys_are_one_too_many(
    server: Server, upstream: Upstream, operators: Upstream, visitor: Visitor
) -> None:
    """Two Authorization headers are refused in any order, so that none can shadow the other."""
    body = visitor.body(model="gpt-4o-mini")
    both = [f"Authorization: Bearer {OWN_KEY}", "Authorization: Bearer keyturn"]
    for lines in (both, both[::-1]):
        headers = {**visitor.headers(), "Content-Length": str(len(body))}
        answer = await send_raw(server, head("POST", COMPLETIONS, headers, *lines) + body)
        assert (answer.status, answer.code) == (400, "header_repeated")
    assert await upstream.books() == await operators.books() == []


async def test_headers_of_the_gate_change_nothing(visitor: Visitor, upstream: Upstream) -> None:
    """With an own key a stale timestamp or a strange fingerprint is not looked at."""
    headers = by_bearer(**{"Keyturn-Timestamp": "1", "Keyturn-Fingerprint": "?"})
    answer = await visitor.post(visitor.body(model="own-model"), headers)
    assert answer.status == 200
    sent = (await upstream.books())[0]["headers"]
    assert not [name for name in sent if name.startswith("keyturn")]


async def test_a_page_that_is_not_listed_may_not(redis_url: str, upstream: Upstream) -> None:
    """On /v1 the operator's list of origins holds for own keys too."""
    settings = settings_with(redis_url=redis_url, byok_base_url=upstream.url)
    async with serving(settings) as server, visiting(server) as visitor:
        for origin, status in (("https://evil.example", 403), ("https://page.example", 200)):
            answer = await visitor.post(visitor.body(), by_bearer(Origin=origin))
            assert answer.status == status
        assert len(await upstream.books()) == 1
