"""All that openai-python can say by the Responses API: sent on, taken, or refused by its name.

What it can say is read from the SDK's own types, so that whatever a new one adds is noticed here.
"""

import typing
from typing import Any, get_args, get_origin

import pytest
from openai.types.responses import (
    ResponseStreamEvent,
    response_create_params,
    response_function_call_output_item_param,
    response_input_content_param,
    response_input_param,
    response_output_message_param,
    tool_param,
)
from openai.types.shared_params import reasoning
from pydantic import BaseModel

from completions.grammars import ResponsesScanner
from tests.completions.request_stage import HELLO
from tests.completions.responses_stage import (
    THOUGHT,
    answered,
    call,
    refusal,
    result,
    sent,
    tool,
)
from tests.completions.responses_stream import event
from tests.completions.tool_stage import TOOLS

SCHEMA = {"type": "json_schema", "name": "a", "schema": {"type": "object"}, "strict": True}
FORWARDED: dict[str, list[Any]] = {
    "input": [HELLO],
    "instructions": ["Be brief.", ""],
    "max_output_tokens": [16, 1000],
    "model": ["new-model", "old-model"],
    "parallel_tool_calls": [True, False],
    "reasoning": [{"effort": "low"}],
    "stream": [True, False],
    "temperature": [0, 0.5, 2],
    "text": [{"verbosity": "low"}, {"format": SCHEMA}, {"format": {"type": "json_object"}}],
    "tool_choice": ["auto", "none", "required", {"type": "function", "name": "f"}],
    "tools": [[tool()], [tool("g", parameters={"type": "object"}, strict=False), tool()]],
    "top_p": [0, 1],
}
NEUTRAL: dict[str, list[Any]] = {
    "background": [False],
    "include": [[], ["reasoning.encrypted_content"]],
    "metadata": [{}, {"a": "b"}],
    "service_tier": ["auto"],
    "store": [False],
    "stream_options": [{}, {"include_obfuscation": False}, {"include_usage": True}],
    "top_logprobs": [0],
    "truncation": ["disabled"],
    "user": ["me"],
}
NOT_NEUTRAL: dict[str, list[Any]] = {
    "background": [True, 0, "false"],
    "include": [["message.output_text.logprobs"], ["x"], "x", ["reasoning.encrypted_content"] * 2],
    "service_tier": ["default", "flex", "priority", "fast", "ultrafast", 1],
    "store": [True, 0, 1],
    "top_logprobs": [1, 20, False, 0.0, "0"],
    "truncation": ["auto", ""],
}
REFUSED: dict[str, Any] = {
    "access_programs": {"cyber": "standard"},
    "background_options": {"completion_window": "2h"},
    "context_management": [{"type": "compaction"}],
    "conversation": "conv_1",
    "image": {"context_compression": "auto"},
    "max_tool_calls": 5,
    "moderation": {"model": "omni-moderation-latest"},
    "previous_response_id": "resp_1",
    "prompt": {"id": "pmpt_1"},
    "prompt_cache_key": "mine",
    "prompt_cache_options": {"mode": "explicit"},
    "prompt_cache_retention": "24h",
    "safety_identifier": "me",
}


def test_every_parameter_of_the_sdk_has_its_place() -> None:
    """One that is new in the SDK fails here, until somebody has decided what becomes of it."""
    known = set(response_create_params.ResponseCreateParamsNonStreaming.__annotations__)
    assert {*FORWARDED, *NEUTRAL, *REFUSED} == known
    assert len(FORWARDED) + len(NEUTRAL) + len(REFUSED) == len(known)
    assert set(NOT_NEUTRAL) <= set(NEUTRAL)


def each(table: dict[str, list[Any]]) -> list[Any]:
    """Each parameter with each of its values."""
    pairs = [(name, value) for name, values in table.items() for value in values]
    return [pytest.param(name, value, id=f"{name}={value}"[:60]) for name, value in pairs]


@pytest.mark.parametrize(("name", "value"), each(FORWARDED))
def test_what_is_forwarded_arrives_as_it_was_said(name: str, value: Any) -> None:
    """Whatever else is sent with it."""
    upstream = sent(policy=TOOLS, **{"tools": [tool()], **{name: value}})
    assert upstream[name] == value


@pytest.mark.parametrize(("name", "value"), each(NEUTRAL))
def test_what_changes_nothing_is_taken_and_not_sent(name: str, value: Any) -> None:
    """The same goes upstream as without it."""
    assert sent(**{name: value}) == sent()


@pytest.mark.parametrize(("name", "value"), each(NOT_NEUTRAL))
def test_all_else_of_it_is_refused_by_name(name: str, value: Any) -> None:
    """What stores, costs or tells more."""
    rejection = refusal(**{name: value})
    assert (rejection.code, rejection.param) == ("unsupported_parameter", name)
    assert rejection.detail == f"{name}: only its default is supported here."


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_for_here_is_refused_by_name(name: str) -> None:
    """With a value; null says nothing, of any parameter."""
    rejection = refusal(policy=TOOLS, **{name: REFUSED[name]})
    assert (rejection.code, rejection.param) == ("unsupported_parameter", name)
    assert rejection.detail == f"{name} is not supported here."
    silent: dict[str, Any] = {name: None}
    assert sent(**silent) == sent()


def test_of_reasoning_only_the_effort_is_for_here() -> None:
    """A mode or a summary may cost beside the output; a context is that of a stored response."""
    known = set(reasoning.Reasoning.__annotations__)
    assert {"effort", "summary", "mode"} < known
    for name in known - {"effort"}:
        rejection = refusal(reasoning={"effort": "low", name: "auto"})
        assert (rejection.code, rejection.param) == ("unsupported_parameter", f"reasoning.{name}")
        silent: Any = {"effort": "low", name: None}
        assert sent(reasoning=silent)["reasoning"] == {"effort": "low"}


def members(union: Any) -> list[Any]:
    """The members of a union, those of unions within it too."""
    if get_origin(union) is typing.Annotated:
        return members(get_args(union)[0])
    if get_origin(union) in (typing.Union, list):
        return [inner for member in get_args(union) for inner in members(member)]
    return [union]


def types_of(union: Any) -> set[str]:
    """What the members of a union may have as their type."""
    found: set[str] = set()
    for member in members(union):
        if issubclass(member, BaseModel):
            hint: Any = member.model_fields["type"].annotation
        else:
            hint = typing.get_type_hints(member).get("type")
        found |= {
            word
            for literal in members(hint)
            for word in get_args(literal)
            if get_origin(literal) is typing.Literal
        }
    return found


ITEMS: dict[str, list[Any]] = {
    "message": [{"type": "message", "role": "user", "content": "x"}],
    "function_call": [call(), result()],
    "function_call_output": [call(), result()],
    "reasoning": [*HELLO, THOUGHT],
}


def test_every_item_of_the_sdk_is_taken_or_refused_by_its_type() -> None:
    """Messages, calls of functions, their results and what was thought; nothing that is hosted."""
    types = types_of(response_input_param.ResponseInputItemParam)
    assert len(types) > 30
    assert types > set(ITEMS)
    for type_ in types - set(ITEMS):
        item = {"type": type_, "id": "x", "role": "developer", "call_id": "c", "content": "x"}
        rejection = refusal(policy=TOOLS, input=[*HELLO, item])
        assert (rejection.code, rejection.param) == ("unsupported_parameter", "input.1.type")
        told = "nothing is stored here" if type_ == "item_reference" else "only items of the types"
        assert told in str(rejection.detail)
    for items in ITEMS.values():
        assert sent(policy=TOOLS, input=items)


def test_every_content_of_the_sdk_is_text_or_refused_by_its_type() -> None:
    """No image, no file and no sound, neither from the user nor as the result of a call."""
    said = types_of(response_input_content_param.ResponseInputContentParam)
    gave = types_of(response_function_call_output_item_param.ResponseFunctionCallOutputItemParam)
    assert {"input_text", "input_image", "input_file"} <= said & gave
    for type_ in (said | {"input_audio", "text", "output_text"}) - {"input_text"}:
        parts = [{"type": "input_text", "text": "x"}, {"type": type_, "image_url": "x"}]
        rejection = refusal(input=[{"role": "user", "content": parts}])
        assert (rejection.code, rejection.param) == (
            *("unsupported_parameter", "input.0.content.1.type"),
        )
        rejection = refusal(policy=TOOLS, input=[call(), result(output=parts)])
        assert (rejection.code, rejection.param) == (
            *("unsupported_parameter", "input.1.output.1.type"),
        )


def test_every_content_of_an_answer_of_the_sdk_may_come_back() -> None:
    """What the model said, or would not say; and nothing else in its name."""
    assert types_of(response_output_message_param.Content) == {"output_text", "refusal"}
    refused = answered({"type": "refusal", "refusal": "no"})
    assert sent(input=[answered(), refused, *HELLO])
    for type_ in ("input_text", "text", "input_image"):
        rejection = refusal(input=[answered({"type": type_, "text": "x"})])
        assert (rejection.code, rejection.param) == (
            *("unsupported_parameter", "input.0.content.0.type"),
        )


def test_every_tool_of_the_sdk_is_a_function_or_refused_by_its_type() -> None:
    """What runs at upstream's costs more than tokens, and is no choice either."""
    types = types_of(tool_param.ToolParam)
    assert {"function", "web_search", "mcp", "code_interpreter", "image_generation"} <= types
    chosen = types_of(typing.Union[get_args(response_create_params.ToolChoice)[1:]])  # noqa: UP007
    assert {"allowed_tools", "function", "mcp", "custom"} <= chosen
    for type_ in (types | chosen) - {"function"}:
        for said, param in (
            ({"tools": [tool(), {"type": type_, "name": "x"}]}, "tools.1.type"),
            ({"tools": [tool()], "tool_choice": {"type": type_}}, "tool_choice.type"),
        ):
            rejection = refusal(policy=TOOLS, **said)
            assert (rejection.code, rejection.param) == ("unsupported_parameter", param)
            assert refusal(**said).code == "unsupported_parameter"


def test_every_event_of_the_sdk_passes_but_those_that_fail() -> None:
    """Whatever it is called: only an error and a failed response are held back."""
    kinds = types_of(ResponseStreamEvent)
    assert len(kinds) > 50
    for kind in kinds:
        scanner = ResponsesScanner()
        data = event(kind, 0, delta="x", response={"usage": None})
        fails = kind in ("error", "response.failed")
        assert (scanner.feed(data), scanner.failed) == (b"" if fails else data, fails)
        assert scanner.done is (kind in ("response.completed", "response.incomplete"))
        assert scanner.text_bytes == kind.endswith(".delta")
