"""The openai SDK against POST /v1/responses: it reads answers, and raises failures as its own."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from openai import (
    APIError,
    APIStatusError,
    AsyncOpenAI,
    BadRequestError,
    InternalServerError,
    UnprocessableEntityError,
)
from openai.types.responses import ResponseCompletedEvent
from pydantic import BaseModel

from patience import Patience
from tests.stage import FINGERPRINT, Server, Upstream, now_ms, serving, settings_with
from tests.upstream import play
from tests.upstream_shapes import response_of

MODEL = "gpt-4.1-mini"
FAILURES: dict[str, tuple[dict[str, Any], str]] = {
    "an error": ({"error_after": 2}, "upstream_unavailable"),
    "a reset": ({"words": 9, "reset_after": 2, "gap_ms": 20}, "upstream_unavailable"),
    "no end": ({"finish": False}, "upstream_unavailable"),
    "silence": ({"hang_after": 2}, "upstream_timeout"),
    "too long": (
        {"raw": ['data: {"type":"error","error":{"code":"context_length_exceeded"}}\n\n']},
        "upstream_rejected",
    ),
}


@pytest.fixture
async def server(redis_url: str, upstream: Upstream) -> AsyncIterator[Server]:
    """Keyturn with tools, and with little patience for upstream."""
    urls = {"openai_base_url": upstream.url, "byok_base_url": upstream.url}
    settings = settings_with(redis_url=redis_url, allow_tools="on", **urls)
    async with serving(settings, Patience(silence=0.6)) as server:
        yield server


@asynccontextmanager
async def client_of(server: Server, **more: str) -> AsyncIterator[AsyncOpenAI]:
    """The SDK as a page configures it: a placeholder for a key, and the headers of the gate."""
    headers = {"Keyturn-Fingerprint": FINGERPRINT, "Keyturn-Timestamp": str(now_ms()), **more}
    async with AsyncOpenAI(
        api_key="keyturn", base_url=f"{server.url}/v1", max_retries=0, default_headers=headers
    ) as client:
        yield client


async def test_a_whole_answer_is_read(server: Server) -> None:
    """Its text, its usage, and the next token beside it."""
    async with client_of(server) as client:
        raw = await client.responses.with_raw_response.create(model=MODEL, input="hi")
        answer = raw.parse()
    assert answer.output_text == "hi " * 3
    assert answer.usage
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (7, 3)
    assert raw.headers["keyturn-token"]


async def test_a_stream_is_read_event_by_event(server: Server) -> None:
    """In order and to its end, which is a completed response."""
    async with client_of(server) as client:
        stream = await client.responses.create(model=MODEL, input="hi", stream=True)
        events = [event async for event in stream]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == "hi " * 3
    assert isinstance(events[-1], ResponseCompletedEvent)
    assert events[-1].response.output_text == "hi " * 3


class Found(BaseModel):
    """What an answer is parsed into."""

    place: str


async def test_the_helpers_work(server: Server, upstream: Upstream) -> None:
    """`stream` puts the response together, `parse` sends a schema and reads by it."""
    async with client_of(server) as client:
        async with client.responses.stream(model=MODEL, input="hi") as stream:
            assert (await stream.get_final_response()).output_text == "hi " * 3
        said = play(words=1, text='{"place":"here"}')
        parsed = await client.responses.parse(model=MODEL, input=said, text_format=Found)
        assert parsed.output_parsed == Found(place="here")
    form = (await upstream.books())[-1]["body"]["text"]["format"]
    assert (form["type"], form["name"], form["strict"]) == ("json_schema", "Found", True)


async def test_a_round_of_tools_as_the_sdk_sends_it(server: Server, upstream: Upstream) -> None:
    """What was answered goes back as it came, with the result of its call behind it."""
    call = {
        **{"type": "function_call", "id": "fc_1", "call_id": "call_1", "status": "completed"},
        **{"name": "look", "arguments": "{}"},
    }
    thought = {"type": "reasoning", "id": "rs_1", "summary": []}
    asks: Any = {**response_of("", "completed", None), "output": [thought, call]}
    tool: Any = {"type": "function", "name": "look", "parameters": None, "strict": None}
    items: list[Any] = [{"role": "user", "content": play(body=asks)}]
    async with client_of(server) as client:
        first = await client.responses.create(model=MODEL, input=items, tools=[tool])
        items += first.output
        items.append({"type": "function_call_output", "call_id": "call_1", "output": "a tree"})
        items.append({"role": "user", "content": "and?"})
        second = await client.responses.create(model=MODEL, input=items, tools=[tool])
        items += second.output
        assert (await client.responses.create(model=MODEL, input=items)).output_text
    sent = (await upstream.books())[1]["body"]
    assert [item.get("type") for item in sent["input"]] == [
        *(None, "function_call", "function_call_output", None),
    ]
    assert sent["input"][1] == {
        name: call[name] for name in ("type", "call_id", "name", "arguments")
    }
    assert sent["tools"] == [{"type": "function", "name": "look"}]


@pytest.mark.parametrize(("script", "code"), FAILURES.values(), ids=FAILURES)
async def test_a_failure_in_the_middle_is_raised_by_create(
    server: Server, script: dict[str, Any], code: str
) -> None:
    """As an error of the API with our code, soon; never a stream that just ends or hangs."""
    async with client_of(server) as client, asyncio.timeout(5):
        stream = await client.responses.create(model=MODEL, input=play(**script), stream=True)
        with pytest.raises(APIError) as failed:
            [event async for event in stream]
    assert failed.value.code == code
    assert "secret text" not in str(failed.value)


@pytest.mark.parametrize(("script", "code"), FAILURES.values(), ids=FAILURES)
async def test_a_failure_in_the_middle_is_raised_by_stream(
    server: Server, script: dict[str, Any], code: str
) -> None:
    """The helper that puts responses together raises the same."""
    async with client_of(server) as client, asyncio.timeout(5):
        with pytest.raises(APIError) as failed:
            async with client.responses.stream(model=MODEL, input=play(**script)) as stream:
                await stream.get_final_response()
    assert failed.value.code == code


async def test_a_refusal_is_raised_by_its_status(server: Server, upstream: Upstream) -> None:
    """Ours before the gate, ours behind it, and upstream's: each with its code."""
    rows: list[tuple[type[APIStatusError], str, dict[str, Any]]] = [
        (UnprocessableEntityError, "invalid_request", {"input": "x" * 10_001}),
        (BadRequestError, "unsupported_parameter", {"previous_response_id": "resp_1"}),
        (BadRequestError, "unsupported_parameter", {"tools": [{"type": "web_search"}]}),
        (BadRequestError, "unsupported_parameter", {"store": True}),
        (InternalServerError, "upstream_unavailable", {"input": play(status=500, body={})}),
    ]
    async with client_of(server) as client:
        for kind, code, said in rows:
            for stream in (False, True):
                with pytest.raises(kind) as refused:
                    await client.responses.create(
                        **{"model": MODEL, "input": "hi", "stream": stream, **said}
                    )
                assert refused.value.code == code
                problem = json.loads(refused.value.response.text)
                assert problem["error"]["param"] == problem.get("param")
    assert len(await upstream.books()) == 2


async def test_what_is_kept_at_openai_is_not_found_here(server: Server) -> None:
    """Nothing is stored, so there is nothing to fetch, to cancel or to delete."""
    async with client_of(server) as client:
        for ask in (
            client.responses.retrieve("resp_1"),
            client.responses.cancel("resp_1"),
            client.responses.delete("resp_1"),
            client.responses.input_items.list("resp_1"),
            client.responses.input_tokens.count(model=MODEL, input="hi"),
        ):
            with pytest.raises(APIStatusError) as refused:
                await ask
            assert refused.value.code == "not_found"
