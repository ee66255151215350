"""Tools: what may not be asked of them, and what a refusal tells."""

from typing import Any

import pytest

from tests.completions.request_stage import HELLO, refusal
from tests.completions.tool_stage import TOOLS, call, calls, result, tool

OFF: list[tuple[dict[str, Any], str]] = [
    ({"tools": [tool()]}, "tools"),
    ({"tools": []}, "tools"),
    ({"tools": 5}, "tools"),
    ({"tool_choice": "auto"}, "tool_choice"),
    ({"tool_choice": "none"}, "tool_choice"),
    ({"parallel_tool_calls": True}, "parallel_tool_calls"),
    ({"parallel_tool_calls": False}, "parallel_tool_calls"),
    ({"messages": [*HELLO, calls(call()), result()]}, "messages.1.tool_calls"),
    ({"messages": [*HELLO, calls("x")]}, "messages.1.tool_calls"),  # type: ignore[arg-type]
    ({"messages": [*HELLO, result()]}, "messages.1.role"),
    ({"messages": [{"role": "tool"}]}, "messages.0.role"),
    ({"messages": [{**HELLO[0], "tool_call_id": "c"}]}, "messages.0.tool_call_id"),
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


HOSTED = [
    *("web_search", "web_search_preview", "file_search", "code_interpreter", "computer_use"),
    *("mcp", "image_generation", "local_shell", "custom", "Function", ""),
]


@pytest.mark.parametrize("type_", HOSTED)
def test_only_functions_are_tools(type_: str) -> None:
    """What runs at upstream's costs more than tokens: it is refused by name, on or off."""
    for said, param in (
        ({"tools": [tool(), {"type": type_, type_: {"name": "x"}}]}, "tools.1.type"),
        ({"tools": [tool()], "tool_choice": {"type": type_}}, "tool_choice.type"),
        ({"messages": [calls(call(type=type_)), result()]}, "messages.0.tool_calls.0.type"),
    ):
        rejection = refusal(policy=TOOLS, **said)
        assert (rejection.code, rejection.param) == ("unsupported_parameter", param)
        assert rejection.detail == f"{param}: only the type function is supported here."
        assert refusal(**said).code == "unsupported_parameter"


@pytest.mark.parametrize(
    ("said", "param"),
    [
        ({"functions": []}, "functions"),
        ({"function_call": "auto"}, "function_call"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"tools": [tool(x=1)]}, "tools.0.function.x"),
        ({"tools": [{**tool(), "x": 1}]}, "tools.0.x"),
        ({"messages": [{**HELLO[0], "function_call": {}}]}, "messages.0.function_call"),
        ({"messages": [calls(call(index=0)), result()]}, "messages.0.tool_calls.0.index"),
    ],
    ids=str,
)
def test_what_is_older_or_newer_stays_refused(said: dict[str, Any], param: str) -> None:
    """Allowing tools allows nothing else."""
    rejection = refusal(policy=TOOLS, **said)
    assert (rejection.code, rejection.param) == ("unsupported_parameter", param)
    assert rejection.detail == f"{param} is not supported here."


NAMED = {"type": "function", "function": {"name": "g"}}
UNUSABLE: list[tuple[dict[str, Any], str, str]] = [
    ({"tools": []}, "tools", "at least 1 item, not 0"),
    ({"tools": [tool(f"f{n}") for n in range(129)]}, "tools", "at most 128 items, not 129"),
    ({"tools": {}}, "tools", "should be an array"),
    ({"tools": ["f"]}, "tools.0", "should be an object"),
    ({"tools": [{"function": {"name": "f"}}]}, "tools.0.type", "required"),
    ({"tools": [{"type": "function", "name": "f"}]}, "tools.0.function", "required"),
    ({"tools": [tool("a b")]}, "tools.0.function.name", "{1,64}"),
    ({"tools": [tool("")]}, "tools.0.function.name", "{1,64}"),
    ({"tools": [tool("f" * 65)]}, "tools.0.function.name", "{1,64}"),
    ({"tools": [tool("f\n")]}, "tools.0.function.name", "{1,64}"),
    ({"tools": [tool(parameters=[])]}, "tools.0.function.parameters", "should be an object"),
    (
        {"tools": [tool(parameters={"type": "array"})]},
        "tools.0.function.parameters",
        "a JSON Schema whose type is object",
    ),
    ({"tools": [tool(strict=1)]}, "tools.0.function.strict", "should be true or false"),
    ({"tools": [tool(), tool("g"), tool()]}, "tools.2.function.name", "used by tools.0 too"),
    ({"tool_choice": "auto"}, "tool_choice", "goes with tools; send both, or neither"),
    ({"parallel_tool_calls": True}, "parallel_tool_calls", "goes with tools; send both"),
    ({"tools": [tool()], "tool_choice": "any"}, "tool_choice", "'none', 'auto' or 'required'"),
    ({"tools": [tool()], "tool_choice": 1}, "tool_choice", "'none', 'auto' or 'required'"),
    ({"tools": [tool()], "tool_choice": {}}, "tool_choice.type", "required"),
    ({"tools": [tool()], "tool_choice": NAMED}, "tool_choice.function.name", "function in tools"),
    ({"tools": [tool()], "parallel_tool_calls": 1}, "parallel_tool_calls", "true or false"),
    ({"messages": [calls(call())]}, "messages.0.tool_calls", "1 of 1 calls not answered"),
    (
        {"messages": [calls(call("a"), call("b"), call("c")), result("b"), *HELLO]},
        "messages.0.tool_calls",
        "2 of 3 calls not answered; each needs a message of the role tool, before any other",
    ),
    ({"messages": [result()]}, "messages.0.tool_call_id", "not answered yet"),
    ({"messages": [*HELLO, result()]}, "messages.1.tool_call_id", "not answered yet"),
    ({"messages": [calls(call()), result("x")]}, "messages.1.tool_call_id", "not answered yet"),
    ({"messages": [calls(call()), result(), result()]}, "messages.2.tool_call_id", "not answered"),
    ({"messages": [calls(call()), result(), *HELLO, result()]}, "messages.3.tool_call_id", "not"),
    (
        {"messages": [calls(call()), {"role": "tool", "content": "x"}]},
        "messages.1.tool_call_id",
        "",
    ),
    ({"messages": [calls(call()), result(content=None)]}, "messages.1.content", "required"),
    ({"messages": [{"role": "assistant", "tool_calls": []}]}, "messages.0.content", "required"),
    ({"messages": [calls(call(), role="user")]}, "messages.0.role", "should be 'assistant'"),
    ({"messages": [result(role="user")]}, "messages.0.tool_call_id", "not supported here"),
    ({"messages": [calls(call()), result(tool_calls=[call()])]}, "messages.1.tool_calls", "not"),
    ({"messages": [calls("x")]}, "messages.0.tool_calls.0", "an object"),  # type: ignore[arg-type]
    ({"messages": [{**calls(), "tool_calls": "x"}]}, "messages.0.tool_calls", "an array"),
    ({"messages": [calls(call(), call())]}, "messages.0.tool_calls", "an id of its own"),
    ({"messages": [calls(call(""))]}, "messages.0.tool_calls.0.id", "at least 1"),
    ({"messages": [calls(call("c" * 129))]}, "messages.0.tool_calls.0.id", "at most 128"),
    ({"messages": [calls(*[call()] * 129)]}, "messages.0.tool_calls", "at most 128 items, not 129"),
    (
        {"messages": [calls({**call(), "function": {"name": "f", "arguments": {}}})]},
        "messages.0.tool_calls.0.function.arguments",
        "should be a string",
    ),
    (
        {"messages": [calls(call()), result(content=[{"type": "image_url"}])]},
        "messages.1.content.0.type",
        "only the type text",
    ),
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
