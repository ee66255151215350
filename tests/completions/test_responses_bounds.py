"""The worst case of a request by the Responses API counts all that upstream may read of it."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings

from completions.request import ChatRequest, Policy
from completions.responses import parse_responses
from tests.completions.request_stage import HELLO, LOCKED, POLICY, upstream_body
from tests.completions.responses_stage import asked, body, call, result, tool
from tests.completions.test_request_bounds import (
    DRAWN_TOOLS,
    as_json,
    as_typescript,
    most_tokens,
    prompt_tokens,
    size,
)
from tests.completions.test_responses import GOOD
from tests.completions.tool_stage import TOOLS

FRAME = 16  # tokens around a message, more than any known template has
PREAMBLE = 64  # and before them all


def rest(request: ChatRequest) -> int:
    """The tokens that are held beside the bytes of the body."""
    return prompt_tokens(request) - size(request)


def as_read(upstream: dict[str, Any]) -> int:
    """The most tokens of an honest upstream's prompt, as a template of chats makes it."""
    form = upstream.get("text", {}).get("format", {}).get("schema")
    said = [upstream.get("instructions", ""), json.dumps(form, indent=2) if form else ""]
    for item in upstream["input"]:
        content = item["content"]
        parts = content if isinstance(content, list) else [{"text": content}]
        said += [item["role"], *(part["text"] for part in parts)]
    return sum(map(most_tokens, said)) + FRAME * (len(upstream["input"]) + 1) + PREAMBLE


@given(GOOD)
def test_an_honest_upstream_never_bills_more_than_the_worst_case(said: dict[str, Any]) -> None:
    """Whatever a good body says: prompt and output, locked prompt or not, by each price."""
    raw = json.dumps(said).encode()
    policies: list[Policy] = [POLICY, replace(POLICY, unstored=True, identified=True)]
    for policy in policies:
        request = parse_responses(raw, policy, safety_identifier="x" * 22)
        upstream = upstream_body(request)
        tokens, price = as_read(upstream), request.price
        bill = tokens * price.input + upstream["max_output_tokens"] * price.output
        assert tokens <= prompt_tokens(request)
        assert -(-bill // 1_000_000) <= request.worst.total


@pytest.mark.parametrize("text", ["hello", "🙂", "grüße", '"\\\n\t'])
def test_plain_input_counts_its_bytes(text: str) -> None:
    """Exactly the bytes that leave, 16 for each item and for the instructions, and 64."""
    items = [{"role": "user", "content": text}] * 3
    for said in ({}, {"instructions": text}, {"stream": True, "temperature": 1}):
        assert rest(asked(input=items, **said)) == 4 * 16 + 64
    assert rest(asked(input=text)) == 2 * 16 + 64
    assert rest(asked(policy=LOCKED, input=text)) == 3 * 16 + 64


def test_what_is_only_taken_costs_nothing() -> None:
    """Thoughts, ids and neutral values are not sent, so they are not held for."""
    thought = {"type": "reasoning", "encrypted_content": "x" * 9000}
    request = asked(input=[thought, *HELLO], user="x" * 900, metadata={"a": "x" * 900}, tools=[])
    assert request.worst == asked().worst


def test_letters_that_grow_are_counted_grown() -> None:
    """What normal form C may make longer is held for, also in instructions."""
    text = "\u0958" * 20
    assert text.encode() in asked(instructions=text).upstream(16)
    assert rest(asked(instructions=text)) == 2 * 16 + 64 + 2 * len(text.encode())
    assert rest(asked(input=text)) == 2 * 16 + 64 + 2 * len(text.encode())


def tokens_left_for(tools: list[Any]) -> int:
    """What the worst case allows for these tools, beside the rest of the request."""
    return prompt_tokens(asked(policy=TOOLS, tools=tools)) - prompt_tokens(asked())


@pytest.mark.parametrize("shown", [as_typescript, as_json])
@settings(max_examples=30)  # the same rule as for chats, where it is tried more often
@given(tools=DRAWN_TOOLS)
def test_tools_are_paid_for_however_upstream_shows_them(
    shown: Callable[[list[Any]], str], tools: list[Any]
) -> None:
    """Indented, escaped, in another language: with a thousand tokens of its own words besides."""
    flat = [{"type": "function", **each["function"]} for each in tools]
    assert most_tokens(shown(tools)) + 900 <= tokens_left_for(flat)


def test_their_bytes_alone_would_not_pay() -> None:
    """The control: escaped emoji, or brackets on lines of their own, are more than the bytes."""
    for tools in (
        [tool(description="🙂" * 200)],
        [tool(parameters={"enum": [[1]] * 200})],
    ):
        written = len(json.dumps(tools, ensure_ascii=False, separators=(",", ":")).encode())
        assert most_tokens(as_json(tools)) > written
        assert most_tokens(as_json(tools)) + 900 <= tokens_left_for(tools)


def test_calls_and_schemas_count_in_the_same_way() -> None:
    """Whatever is JSON that upstream writes out anew: once as sent, and once more as ASCII."""
    form = {"type": "json_schema", "name": "a", "schema": {"größe": {"type": "number"}}}
    request = asked(text={"format": form})
    assert rest(request) == 2 * 16 + 64 + written_anew([form]) + 1024
    made = [call("a", '{"x":"🙂"}'), call("b")]
    request = asked(policy=TOOLS, input=[*made, result("a"), result("b")])
    assert rest(request) == 5 * 16 + 64 + written_anew(made) + 1024
    both = asked(policy=TOOLS, input=[*made, result("a"), result("b")], tools=[tool()])
    assert rest(both) == 5 * 16 + 64 + written_anew([tool(), *made]) + 1024
    assert rest(asked(text={"format": {"type": "json_object"}})) == 2 * 16 + 64


def written_anew(said: list[Any]) -> int:
    """The bytes of this as ASCII."""
    return len(json.dumps(said, separators=(",", ":")))


def test_the_identifier_is_counted_too() -> None:
    """All that is sent is, whoever put it there."""
    policy = replace(POLICY, identified=True)
    request = parse_responses(body(), policy, safety_identifier="x" * 22)
    assert b"x" * 22 in request.upstream(16)
    assert rest(request) == 2 * 16 + 64
