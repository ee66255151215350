"""Tools: what of them may be asked where the operator allows them."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from security.errors import InvalidRequest
from tests.completions.request_stage import HELLO, POLICY, asked, refusal, sent
from tests.completions.tool_stage import TOOLS, as_tools, call, calls, result, tool

NAME = st.from_regex(r"\A[A-Za-z0-9_-]{1,64}\Z")
TEXT = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cn", "Cs"]), max_size=20
).map(lambda text: "".join(sign for sign in text if not 0xE0000 <= ord(sign) <= 0xE007F))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(-1e9, 1e9) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
PARAMETERS = st.dictionaries(TEXT.filter(lambda name: name != "type"), JSON, max_size=3)
FUNCTION = st.fixed_dictionaries(
    {"name": NAME},
    optional={
        "description": TEXT,
        "parameters": PARAMETERS | PARAMETERS.map(lambda said: {"type": "object", **said}),
        "strict": st.booleans(),
    },
)


GIVEN_TOOLS = st.lists(
    FUNCTION, min_size=1, max_size=4, unique_by=lambda function: str(function["name"])
).map(as_tools)


@given(GIVEN_TOOLS, st.data(), st.booleans() | st.none())
def test_tools_arrive_as_they_were_said(
    tools: list[Any], data: st.DataObject, parallel: bool | None
) -> None:
    """Schemas with all that is in them, nulls too; the choice; whether calls may be parallel."""
    one = {"type": "function", "function": {"name": tools[-1]["function"]["name"]}}
    choice = data.draw(st.sampled_from([None, "none", "auto", "required", one]))
    said: dict[str, Any] = {"tools": tools, "tool_choice": choice, "parallel_tool_calls": parallel}
    upstream = sent(policy=TOOLS, **said)
    assert {name: upstream.get(name) for name in said} == said


def test_a_round_of_calls_arrives_as_it_was_said() -> None:
    """A call, its result, and what followed; content that is null or missing is sent as null."""
    parts = [{"type": "text", "text": "12 °C"}]
    messages = [
        *HELLO,
        calls(call("a", '{"x": 1}'), call("b", "not JSON")),
        result("b"),
        result("a", parts, name="f"),
        {"role": "assistant", "content": "done"},
        calls(call("a"), content="once more"),
        result("a"),
    ]
    assert sent(policy=TOOLS, messages=messages, tools=[tool()])["messages"] == messages
    bare = calls(call())
    del bare["content"]
    assert sent(policy=TOOLS, messages=[bare, result()])["messages"] == [calls(call()), result()]


@pytest.mark.parametrize("policy", [POLICY, TOOLS], ids=["off", "on"])
def test_no_tools_is_no_mistake(policy: Any) -> None:
    """What SDKs say of tools in a chat that has none changes nothing, on or off."""
    assistant = {"role": "assistant", "content": "x"}
    said: dict[str, Any] = {
        **assistant,
        "tool_calls": [],
        "tool_call_id": None,
        "function_call": None,
    }
    nothing: dict[str, Any] = {"tools": None, "tool_choice": None, "parallel_tool_calls": None}
    plain = asked(messages=[assistant])
    for messages in ([said], [{**said, "tool_calls": None}]):
        request = asked(policy=policy, messages=messages, **nothing)
        assert (request.unlimited, request.worst) == (plain.unlimited, plain.worst)


def test_the_most_that_is_allowed_is_allowed() -> None:
    """128 tools, 128 calls at once, names of 64 and ids of 128 characters."""
    policy = replace(TOOLS, max_message_chars=128 * len("{}"))
    tools = [tool(f"{n:064}", parameters={}) for n in range(128)]
    ids = [f"{n:0128}" for n in range(128)]
    messages = [calls(*(call(id_) for id_ in ids)), *(result(id_) for id_ in reversed(ids))]
    upstream = sent(policy=policy, messages=messages, tools=tools)
    assert (upstream["messages"], upstream["tools"]) == (messages, tools)


STEPS = st.lists(
    st.sampled_from([HELLO[0], calls(call("a")), calls(call("a"), call("b"))])
    | st.sampled_from([result("a"), result("b")]),
    min_size=1,
    max_size=6,
)


@given(STEPS)
def test_calls_and_results_meet_in_every_conversation_that_passes(messages: list[Any]) -> None:
    """After calls come exactly their results, in any order, and then the conversation goes on."""
    groups: list[list[Any]] = []
    for message in messages:
        if message["role"] == "tool" and groups:
            groups[-1].append(message)
        else:
            groups.append([message])
    meet = all(
        group[0]["role"] != "tool"
        and sorted(message["tool_call_id"] for message in group[1:])
        == sorted(made["id"] for made in group[0].get("tool_calls", []))
        for group in groups
    )
    try:
        passed = bool(asked(policy=TOOLS, messages=messages))
    except InvalidRequest:
        passed = False
    assert passed == meet


def test_the_limit_of_a_message_counts_calls_and_results() -> None:
    """Text, arguments and results: what the model reads of one message, whatever its role."""
    full = calls(call("a", "x" * 40), call("b", "🙂" * 40), content="y" * 20)
    assert asked(policy=TOOLS, messages=[full, result("a", "z" * 100), result("b", "")])
    over = calls(call("a", "x" * 40), call("b", "🙂" * 40), content="y" * 21)
    rejection = refusal(policy=TOOLS, messages=[over, result("a"), result("b")])
    assert (rejection.code, rejection.param) == ("invalid_request", "messages.0")
    told = "messages.0 has 101 characters (calls included); at most 100 are allowed."
    assert rejection.detail == told
    rejection = refusal(policy=TOOLS, messages=[calls(call()), result(content="z" * 101)])
    assert rejection.detail == "messages.1.content has 101 characters; at most 100 are allowed."


def test_tool_messages_count_as_messages() -> None:
    """MAX_MESSAGES holds for them too."""
    few = replace(TOOLS, max_messages=2)
    assert asked(policy=few, messages=[calls(call()), result()])
    rejection = refusal(policy=few, messages=[*HELLO, calls(call()), result()])
    assert rejection.detail == "messages has 3 entries; at most 2 are allowed."


@pytest.mark.parametrize("role", ["system", "developer"])
def test_a_locked_prompt_stays_locked(role: str) -> None:
    """Tools or not: the operator's prompt goes first, and visitors write none."""
    locked = replace(TOOLS, system_prompt="Be brief.")
    messages = [*HELLO, calls(call()), result()]
    said = sent(policy=locked, messages=messages, tools=[tool()])["messages"]
    assert said == [{"role": "system", "content": "Be brief."}, *messages]
    rejection = refusal(policy=locked, messages=[*messages, {"role": role, "content": "obey"}])
    assert rejection.detail == (
        "messages.3.role: the system prompt is the operator's here; "
        "leave out messages of the roles system and developer."
    )


@pytest.mark.parametrize("text", ["a\x07b", "a\U000e0041b"])
def test_unsafe_text_is_refused_in_tools_too(text: str) -> None:
    """In a description, in a schema, in arguments, in a result."""
    places: list[dict[str, Any]] = [
        {"tools": [tool(description=text)]},
        {"tools": [tool(parameters={"properties": {text: {}}})]},
        {"messages": [calls(call(arguments=text)), result()]},
        {"messages": [calls(call()), result(content=text)]},
    ]
    for said in places:
        assert "which is not allowed" in str(refusal(policy=TOOLS, **said).detail)
