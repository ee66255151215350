"""What goes upstream in the operator's name, and that the worst case counts all of it."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import to_json

from completions.chat import parse_chat
from completions.request import ChatRequest
from tests.completions.request_stage import HELLO, POLICY, asked, upstream_body
from tests.completions.tool_stage import TOOLS, as_tools, call, calls, result, tool

WHO = "k3jd83hd72hs92kd83hs7A"


def prompt_tokens(request: ChatRequest) -> int:
    """The most tokens of prompt that the worst case pays for."""
    return request.worst.prompt_pico_usd // request.price.input


def size(request: ChatRequest) -> int:
    """Bytes of the body that is sent."""
    return len(request.upstream(request.worst.max_output))


def test_upstream_is_told_not_to_keep_a_chat_where_it_would() -> None:
    """`store: false` in so many words, and only there: others refuse words they do not know."""
    assert "store" not in upstream_body(asked())
    for said in ({}, {"store": False}, {"store": None}):
        request = asked(policy=replace(POLICY, unstored=True), **said)
        assert upstream_body(request)["store"] is False
        assert prompt_tokens(request) == size(request) + 16 + 64


def test_what_leaves_is_written_as_python_writes_json() -> None:
    """Byte by byte, numbers too: what was said, then how it is to be answered, then our rules."""
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"minimum": 1e-7}}}
    said = {"messages": [{"role": "user", "content": 'grüße\n"\\/\u2028😀'}], "stream": False}
    chosen = {"temperature": 1e-05, "stop": ["ü"], "response_format": form}
    ruled = {"store": False, "safety_identifier": WHO}
    policy = replace(POLICY, unstored=True, identified=True)
    for settings in ({}, chosen):
        body = json.dumps({**settings, **said}).encode()
        expected = {"max_completion_tokens": 9, "model": "new-model", **said, **settings, **ruled}
        written = json.dumps(expected, ensure_ascii=False, separators=(",", ":")).encode()
        assert parse_chat(body, policy, safety_identifier=WHO).upstream(9) == written
    assert to_json(1e-7) != b"1e-07", "the control: a faster library writes other numbers"


def test_a_visitor_is_named_where_upstream_asks_for_it() -> None:
    """By what the server says, with the policy that says so; never by the visitor's own word."""
    body = json.dumps({"messages": HELLO, "user": "me", "safety_identifier": None}).encode()
    named = parse_chat(body, replace(POLICY, identified=True), safety_identifier=WHO)
    assert upstream_body(named)["safety_identifier"] == WHO
    assert prompt_tokens(named) == size(named) + 16 + 64
    unnamed = parse_chat(body, POLICY, safety_identifier=WHO)
    assert WHO.encode() not in unnamed.upstream(1)
    assert b'"me"' not in named.upstream(1)


@pytest.mark.parametrize("text", ["hello", "🙂", "grüße", '"\\\n\t'])
def test_a_plain_chat_counts_its_bytes(text: str) -> None:
    """Exactly the bytes that leave, 16 for each message and 64."""
    request = asked(messages=[{"role": "user", "content": text}] * 3, stream=True, stop=["x"])
    assert prompt_tokens(request) == size(request) + 3 * 16 + 64


def most_tokens(text: str) -> int:
    """More tokens than any tokenizer makes of a text: each byte, and each run of blanks."""
    return len(re.findall(rb"\s+|\S", text.encode()))


def as_typescript(tools: list[Any]) -> str:
    """Tools in the manner in which OpenAI's models are known to be shown them."""
    lines = ["# Tools", "", "## functions", "", "namespace functions {", ""]
    for each in tools:
        function = each["function"]
        lines += [f"// {function.get('description', '')}", f"type {function['name']} = (_: {{"]
        for name, said in function.get("parameters", {}).get("properties", {}).items():
            lines.append(f"{name}?: {json.dumps(said)},")
        lines += ["}) => any;", ""]
    return "\n".join([*lines, "} // namespace functions"])


def as_json(tools: list[Any]) -> str:
    """Tools as many open models are shown them: indented, and escaped at worst."""
    return json.dumps(tools, indent=4, ensure_ascii=True)


SIGNS = st.characters(codec="utf-8", exclude_categories=["Cc", "Cn", "Cs", "Cf"])
TEXT = st.text(SIGNS, max_size=12)
SCHEMA = st.recursive(
    st.none() | st.booleans() | st.integers(0, 9) | TEXT,
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(TEXT, inner, max_size=6),
)
DRAWN_TOOLS = st.lists(
    st.fixed_dictionaries(
        {"name": st.from_regex(r"\A[A-Za-z0-9_-]{1,8}\Z")},
        optional={
            "description": TEXT,
            "parameters": st.dictionaries(st.just("properties"), st.dictionaries(TEXT, SCHEMA)),
        },
    ),
    min_size=1,
    max_size=4,
    unique_by=lambda function: str(function["name"]),
).map(as_tools)


def tokens_left_for(tools: list[Any]) -> int:
    """What the worst case allows for these tools, beside the rest of the request."""
    with_tools = asked(policy=TOOLS, messages=HELLO, tools=tools)
    return prompt_tokens(with_tools) - prompt_tokens(asked(messages=HELLO))


@pytest.mark.parametrize("shown", [as_typescript, as_json])
@given(tools=DRAWN_TOOLS)
def test_tools_are_paid_for_however_upstream_shows_them(
    shown: Callable[[list[Any]], str], tools: list[Any]
) -> None:
    """Indented, escaped, in another language: with a thousand tokens of its own words besides."""
    assert most_tokens(shown(tools)) + 900 <= tokens_left_for(tools)


def test_their_bytes_alone_would_not_pay() -> None:
    """The control: escaped emoji, or brackets on lines of their own, are more than the bytes."""
    nested: Any = []
    for _ in range(40):
        nested = [nested]
    for tools in (
        [tool(description="🙂" * 200)],
        [tool(parameters={"enum": [[1]] * 200})],
        [tool(parameters={"enum": nested, "x": [[[]]] * 200})],
    ):
        written = len(json.dumps(tools, ensure_ascii=False, separators=(",", ":")).encode())
        assert most_tokens(as_json(tools)) > written
        assert most_tokens(as_json(tools)) + 900 <= tokens_left_for(tools)


def test_calls_and_schemas_count_in_the_same_way() -> None:
    """Whatever is JSON that upstream writes out anew: once as sent, and once more as ASCII."""
    form = {"name": "a", "schema": {"properties": {"größe": {"type": "number"}}}}
    request = asked(response_format={"type": "json_schema", "json_schema": form})
    again = len(json.dumps([form], separators=(",", ":")))
    assert prompt_tokens(request) == size(request) + 16 + 64 + again + 1024
    made = [call("a", '{"x":"🙂"}'), call("b")]
    request = asked(policy=TOOLS, messages=[calls(*made), result("a"), result("b")])
    again = len(json.dumps(made, separators=(",", ":")))
    assert prompt_tokens(request) == size(request) + 3 * 16 + 64 + again + 1024
    request = asked(response_format={"type": "json_object"})
    assert prompt_tokens(request) == size(request) + 16 + 64
