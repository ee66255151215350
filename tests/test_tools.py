"""ALLOW_TOOLS over HTTP: functions of the page are called, and tools of upstream's are not."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from openai import AsyncOpenAI

from embedded.child_upstream import child_upstream
from tests.own_key_stage import OWN_KEY, by_bearer
from tests.stage import Server, Upstream, Visitor, now_ms, serving, settings_with, visiting
from tests.upstream import play

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "What the sky does in a city 🌦",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        "strict": False,
    },
}
CALL: dict[str, Any] = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "weather", "arguments": '{"city":"Graz"}'},
}
QUESTION = {"role": "user", "content": "How is the weather in Graz?"}
ASKED: dict[str, Any] = {"role": "assistant", "content": None, "tool_calls": [CALL]}
RESULT = {"role": "tool", "tool_call_id": "call_1", "content": "12 °C"}


@pytest.fixture
async def server(redis_url: str, upstream: Upstream) -> AsyncIterator[Server]:
    """Keyturn, tools allowed."""
    settings = settings_with(
        redis_url=redis_url,
        openai_base_url=upstream.url,
        byok_base_url=upstream.url,
        allow_tools="on",
    )
    async with serving(settings) as server:
        yield server


async def test_a_function_is_called_and_its_result_answered(
    visitor: Visitor, upstream: Upstream
) -> None:
    """Tools, choice, call and result arrive as they were said, turn by turn along one chain."""
    said: dict[str, Any] = {"tools": [WEATHER], "tool_choice": "auto", "parallel_tool_calls": False}
    assert (await visitor.say(messages=[QUESTION], **said)).status == 200
    messages = [QUESTION, ASKED, RESULT]
    assert (await visitor.say(messages=messages, **said)).status == 200
    bodies = [entry["body"] for entry in await upstream.books()]
    assert [body["messages"] for body in bodies] == [[QUESTION], messages]
    assert all({name: body[name] for name in said} == said for body in bodies)


def frames(*deltas: dict[str, Any]) -> list[str]:
    """A stream that says these deltas, as upstream writes it."""
    choices: list[Any] = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    choices.append({"index": 0, "delta": {}, "finish_reason": "tool_calls"})
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    chunks = [json.dumps({**head, "choices": [choice]}) for choice in choices]
    return [f"data: {chunk}\n\n" for chunk in [*chunks, "[DONE]"]]


async def test_a_call_reaches_the_page_as_openai_said_it(visitor: Visitor, server: Server) -> None:
    """Through the openai SDK, which puts the pieces of the stream together."""
    pieces: list[dict[str, Any]] = [
        {**CALL, "index": 0, "function": {"name": "weather", "arguments": ""}},
        *({"index": 0, "function": {"arguments": part}} for part in ('{"city"', ':"Graz"}')),
    ]
    script = play(raw=frames(*({"tool_calls": [piece]} for piece in pieces)))
    headers = {"Keyturn-Fingerprint": visitor.fingerprint, "Keyturn-Timestamp": f"{now_ms()}"}
    async with (
        AsyncOpenAI(base_url=f"{server.url}/v1", api_key="keyturn", max_retries=0) as client,
        client.chat.completions.stream(
            model="gpt-4.1-mini",
            messages=[{"role": "user", "content": script}],
            tools=[WEATHER],  # type: ignore[list-item]
            extra_headers=headers,
        ) as stream,
    ):
        (choice,) = (await stream.get_final_completion()).choices
    assert choice.finish_reason == "tool_calls"
    (call,) = choice.message.tool_calls or []
    assert (call.id, call.function.name, call.function.arguments) == (
        *("call_1", "weather", '{"city":"Graz"}'),
    )


async def test_a_message_of_the_sdk_can_be_sent_back(visitor: Visitor, upstream: Upstream) -> None:
    """As the SDK dumps it, with all its nulls and empty lists."""
    dumped = {**ASKED, "refusal": None, "annotations": [], "audio": None, "function_call": None}
    messages = [QUESTION, dumped, RESULT]
    answer = await visitor.say(messages=messages, tools=[WEATHER])
    assert answer.status == 200, answer.body
    (entry,) = await upstream.books()
    assert entry["body"]["messages"] == [QUESTION, ASKED, RESULT]


async def test_own_keys_are_held_to_the_same_switch(
    visitor: Visitor, redis_url: str, upstream: Upstream
) -> None:
    """On: they pass. Off: what the operator does not take, no key makes him take."""
    body = visitor.body(messages=[QUESTION, ASKED, RESULT], tools=[WEATHER])
    assert (await visitor.post(body, by_bearer())).status == 200
    (entry,) = await upstream.books()
    assert entry["body"]["tools"] == [WEATHER]
    assert entry["authorization"] == f"Bearer {OWN_KEY}"
    off = settings_with(redis_url=redis_url, byok_base_url=upstream.url)
    async with serving(off) as server, visiting(server) as other:
        answer = await other.post(body, by_bearer())
    assert (answer.code, answer.json["param"]) == ("unsupported_parameter", "tools")
    assert len(await upstream.books()) == 1


TWICE = {"tools": [WEATHER, WEATHER]}
MISTAKES: dict[str, tuple[dict[str, Any], str, str]] = {
    "web search": ({"tools": [{"type": "web_search"}]}, "unsupported_parameter", "tools.0.type"),
    "custom tool": (
        {"tools": [{"type": "custom", "custom": {"name": "x"}}]},
        "unsupported_parameter",
        "tools.0.type",
    ),
    "functions": ({"functions": []}, "unsupported_parameter", "functions"),
    "function call": ({"function_call": "auto"}, "unsupported_parameter", "function_call"),
    "no tools": ({"tools": []}, "invalid_request", "tools"),
    "too many tools": ({"tools": [WEATHER] * 129}, "invalid_request", "tools"),
    "one name twice": (TWICE, "invalid_request", "tools.1.function.name"),
    "choice without tools": ({"tool_choice": "auto"}, "invalid_request", "tool_choice"),
    "odd choice": (
        {"tools": [WEATHER], "tool_choice": "perhaps"},
        "invalid_request",
        "tool_choice",
    ),
    "call without result": (
        {"messages": [QUESTION, ASKED]},
        "invalid_request",
        "messages.1.tool_calls",
    ),
    "result without call": (
        {"messages": [QUESTION, RESULT]},
        "invalid_request",
        "messages.1.tool_call_id",
    ),
    "long result": (
        {"messages": [QUESTION, ASKED, {**RESULT, "content": "x" * 10_001}]},
        "invalid_request",
        "messages.2.content",
    ),
    "long arguments": (
        {
            "messages": [
                {
                    **ASKED,
                    "tool_calls": [
                        {**CALL, "function": {"name": "weather", "arguments": "x" * 10_001}}
                    ],
                },
                RESULT,
            ]
        },
        "invalid_request",
        "messages.0",
    ),
    "image as result": (
        {"messages": [ASKED, {**RESULT, "content": [{"type": "image_url"}]}]},
        "unsupported_parameter",
        "messages.1.content.0.type",
    ),
}


async def test_no_mistake_with_tools_costs_the_token(visitor: Visitor, upstream: Upstream) -> None:
    """Nothing of it reaches upstream, and the token is still good for the next turn."""
    token = (await visitor.say()).token
    for name, (said, code, param) in MISTAKES.items():
        answer = await visitor.post(visitor.body(**said), visitor.headers())
        assert (name, answer.code, answer.json["param"]) == (name, code, param)
        assert answer.json["chain"] == "kept"
        assert answer.json["detail"].startswith(param)
    assert visitor.token == token
    assert len(await upstream.books()) == 1
    assert (await visitor.say(tools=[WEATHER])).status == 200


async def test_the_demo_upstream_takes_tools(redis_url: str) -> None:
    """Without a key of the operator's the page can be tried out with tools too."""
    with child_upstream(delay_ms=0) as demo:
        settings = settings_with(redis_url=redis_url, openai_base_url=demo, allow_tools="on")
        async with serving(settings) as server, visiting(server) as visitor:
            answer = await visitor.say(messages=[QUESTION, ASKED, RESULT], tools=[WEATHER])
    assert answer.status == 200, answer.body
    assert "How is the weather in Graz?" in answer.text
