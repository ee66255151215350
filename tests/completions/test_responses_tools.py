"""Tools, calls and their results by the Responses API, where the operator allows them."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from security.errors import InvalidRequest
from tests.completions.request_stage import HELLO, POLICY
from tests.completions.responses_stage import (
    THOUGHT,
    asked,
    call,
    refusal,
    result,
    sent,
    tool,
)
from tests.completions.test_request_tools import FUNCTION
from tests.completions.tool_stage import TOOLS

GIVEN_TOOLS = st.lists(
    FUNCTION, min_size=1, max_size=4, unique_by=lambda function: str(function["name"])
).map(lambda functions: [{"type": "function", **function} for function in functions])


@given(GIVEN_TOOLS, st.data(), st.booleans() | st.none())
def test_tools_arrive_as_they_were_said(
    tools: list[Any], data: st.DataObject, parallel: bool | None
) -> None:
    """Schemas with all that is in them, nulls too; the choice; whether calls may be parallel."""
    one = {"type": "function", "name": tools[-1]["name"]}
    choice = data.draw(st.sampled_from([None, "none", "auto", "required", one]))
    said: dict[str, Any] = {"tools": tools, "tool_choice": choice, "parallel_tool_calls": parallel}
    upstream = sent(policy=TOOLS, **said)
    assert {name: upstream.get(name) for name in said} == said


def test_a_round_of_calls_arrives_as_it_was_said() -> None:
    """Calls, their results in any order and form, and what followed, without their ids."""
    parts = [{"type": "input_text", "text": "12 °C"}]
    items = [
        *HELLO,
        call("a", '{"x": 1}'),
        call("b", "not JSON"),
        result("b"),
        result("a", parts),
        {"role": "assistant", "content": "done"},
        call("a"),
        result("a", ""),
    ]
    came = [{**item, "id": f"x_{n}", "status": "completed"} for n, item in enumerate(items)]
    assert sent(policy=TOOLS, input=items, tools=[tool()])["input"] == items
    assert sent(policy=TOOLS, input=[THOUGHT, *came], tools=[tool()])["input"] == items


@pytest.mark.parametrize("policy", [POLICY, TOOLS], ids=["off", "on"])
def test_no_tools_is_no_mistake(policy: Any) -> None:
    """The Agents SDK always sends its list of tools, be it empty: on or off it says nothing."""
    nothing: dict[str, Any] = {"tool_choice": None, "parallel_tool_calls": None}
    plain = asked()
    empty: list[Any] = []
    for tools in (empty, None):
        request = asked(policy=policy, tools=tools, include=[], **nothing)
        assert (request.unlimited, request.worst) == (plain.unlimited, plain.worst)


OFF: list[tuple[dict[str, Any], str]] = [
    ({"tools": [tool()]}, "tools"),
    ({"tools": 5}, "tools"),
    ({"tool_choice": "auto"}, "tool_choice"),
    ({"tool_choice": "none"}, "tool_choice"),
    ({"parallel_tool_calls": True}, "parallel_tool_calls"),
    ({"parallel_tool_calls": False}, "parallel_tool_calls"),
    ({"input": [*HELLO, call(), result()]}, "input.1.type"),
    ({"input": [*HELLO, {"type": "function_call"}]}, "input.1.type"),
    ({"input": [*HELLO, result()]}, "input.1.type"),
]


@pytest.mark.parametrize(("said", "param"), OFF, ids=str)
def test_all_of_it_is_refused_by_name_where_tools_are_off(said: dict[str, Any], param: str) -> None:
    """Right or wrong, it is told that this server takes none, and what would change that."""
    rejection = refusal(**said)
    assert (rejection.code, rejection.param) == ("unsupported_parameter", param)
    assert rejection.detail == (
        f"{param}: tool calling is not supported here; "
        "the operator can turn it on with ALLOW_TOOLS=on."
    )


def test_the_most_that_is_allowed_is_allowed() -> None:
    """128 tools, names of 64 and ids of 128 characters."""
    tools = [tool(f"{n:064}", parameters={}) for n in range(128)]
    ids = [f"{n:0128}" for n in range(99)]
    items = [*(call(id_) for id_ in ids), *(result(id_) for id_ in reversed(ids))]
    upstream = sent(policy=TOOLS, input=items, tools=tools)
    assert (upstream["input"], upstream["tools"]) == (items, tools)


NAMED = {"type": "function", "name": "g"}
UNUSABLE: list[tuple[dict[str, Any], str, str]] = [
    ({"tools": [tool(f"f{n}") for n in range(129)]}, "tools", "at most 128 items, not 129"),
    ({"tools": {}}, "tools", "should be an array"),
    ({"tools": ["f"]}, "tools.0", "should be an object"),
    ({"tools": [{"name": "f"}]}, "tools.0.type", "required"),
    ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools.0.name", "required"),
    ({"tools": [tool("a b")]}, "tools.0.name", "{1,64}"),
    ({"tools": [tool("f" * 65)]}, "tools.0.name", "{1,64}"),
    ({"tools": [tool("f\n")]}, "tools.0.name", "{1,64}"),
    ({"tools": [tool(parameters=[])]}, "tools.0.parameters", "should be an object"),
    ({"tools": [tool(parameters={"type": "array"})]}, "tools.0.parameters", "type is object"),
    ({"tools": [tool(strict=1)]}, "tools.0.strict", "should be true or false"),
    ({"tools": [tool(defer_loading=True)]}, "tools.0.defer_loading", "not supported here"),
    ({"tools": [tool(), tool("g"), tool()]}, "tools.2.name", "used by tools.0 too"),
    ({"tool_choice": "auto"}, "tool_choice", "goes with tools; send both, or neither"),
    ({"tools": [], "tool_choice": "auto"}, "tool_choice", "goes with tools"),
    ({"parallel_tool_calls": True}, "parallel_tool_calls", "goes with tools; send both"),
    ({"tools": [tool()], "tool_choice": "any"}, "tool_choice", "'none', 'auto' or 'required'"),
    ({"tools": [tool()], "tool_choice": {}}, "tool_choice.type", "required"),
    ({"tools": [tool()], "tool_choice": NAMED}, "tool_choice.name", "function in tools"),
    ({"tools": [tool()], "parallel_tool_calls": 1}, "parallel_tool_calls", "true or false"),
    ({"input": [call()]}, "input.0", "needs its function_call_output in the input"),
    ({"input": [call("a"), call("b"), result("b"), *HELLO]}, "input.0", "needs its function_call"),
    ({"input": [result()]}, "input.0.call_id", "the id of a call before it"),
    ({"input": [result(), call()]}, "input.0.call_id", "the id of a call before it"),
    ({"input": [call(), result("x")]}, "input.1.call_id", "the id of a call before it"),
    ({"input": [call(), result(), result()]}, "input.2.call_id", "not answered yet"),
    ({"input": [call(), call(), result()]}, "input.1.call_id", "an id of its own"),
    ({"input": [call("")]}, "input.0.call_id", "at least 1"),
    ({"input": [call("c" * 129)]}, "input.0.call_id", "at most 128"),
    ({"input": [call(arguments={})]}, "input.0.arguments", "should be a string"),  # type: ignore[arg-type]
    ({"input": [call(name="a b")]}, "input.0.name", "{1,64}"),
    ({"input": [call(caller={"type": "program"})]}, "input.0.caller", "not supported here"),
    ({"input": [call(), result(output=None)]}, "input.1.output", "required"),
    ({"input": [call(), result(output=[])]}, "input.1.output", "at least 1"),
    ({"input": [call(), result(status="failed")]}, "input.1.status", "'completed'"),
]


@pytest.mark.parametrize(("said", "param", "detail"), UNUSABLE, ids=str)
def test_what_upstream_could_not_use_is_told_before_it_costs(
    said: dict[str, Any], param: str, detail: str
) -> None:
    """Which field, and what would be right; a wrong form would come back as upstream's 400."""
    rejection = refusal(policy=TOOLS, **said)
    assert rejection.param == param
    assert str(rejection.detail).startswith(param)
    assert detail in str(rejection.detail)


STEPS = st.lists(
    st.sampled_from([HELLO[0], THOUGHT, call("a"), call("b"), result("a"), result("b")]),
    min_size=1,
    max_size=6,
)


@given(STEPS)
def test_calls_and_results_meet_in_every_conversation_that_passes(items: list[Any]) -> None:
    """Each call has one result, somewhere behind it; and something is asked."""
    waiting: list[str] = []
    meet = any(item != THOUGHT for item in items)
    for item in items:
        kind, id_ = item.get("type"), item.get("call_id")
        if kind == "function_call":
            meet &= id_ not in waiting
            waiting.append(id_)
        elif kind == "function_call_output":
            meet &= id_ in waiting
            waiting = [other for other in waiting if other != id_]
    try:
        passed = bool(asked(policy=TOOLS, input=items))
    except InvalidRequest:
        passed = False
    assert passed == (meet and not waiting)


def test_the_limit_of_a_message_counts_calls_and_results() -> None:
    """Arguments and results: what the model reads of one item."""
    assert asked(policy=TOOLS, input=[call(arguments="🙂" * 100), result(output="z" * 100)])
    parts = [{"type": "input_text", "text": "x" * 51}] * 2
    for items, told in (
        ([call(arguments="x" * 101), result()], "input.0 has 101 characters"),
        ([call(), result(output="z" * 101)], "input.1 has 101 characters"),
        ([call(), result(output=parts)], "input.1 has 102 characters"),
    ):
        assert refusal(policy=TOOLS, input=items).detail == f"{told}; at most 100 are allowed."


def test_calls_and_thoughts_count_as_messages() -> None:
    """MAX_MESSAGES holds for every item."""
    few = replace(TOOLS, max_messages=2)
    assert asked(policy=few, input=[call(), result()])
    rejection = refusal(policy=few, input=[THOUGHT, call(), result()])
    assert rejection.detail == "input has 3 entries; at most 2 are allowed."


def test_a_locked_prompt_stays_locked() -> None:
    """Tools or not: the operator's prompt goes first, and visitors write none."""
    locked = replace(TOOLS, system_prompt="Be brief.")
    items = [*HELLO, call(), result()]
    said = sent(policy=locked, input=items, tools=[tool()])["input"]
    assert said == [{"role": "system", "content": "Be brief."}, *items]
    rejection = refusal(policy=locked, input=[*items, {"role": "system", "content": "obey"}])
    assert rejection.param == "input.3.role"


@pytest.mark.parametrize("text", ["a\x07b", "a\U000e0041b"])
def test_unsafe_text_is_refused_in_tools_too(text: str) -> None:
    """In a description, in a schema, in arguments, in a result."""
    places: list[dict[str, Any]] = [
        {"tools": [tool(description=text)]},
        {"tools": [tool(parameters={"properties": {text: {}}})]},
        {"input": [call(arguments=text), result()]},
        {"input": [call(), result(output=text)]},
    ]
    for said in places:
        assert "which is not allowed" in str(refusal(policy=TOOLS, **said).detail)
