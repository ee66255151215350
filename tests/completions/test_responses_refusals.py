"""What may not be asked by the Responses API: each refusal names what is wrong, and no value."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from completions.body import Strict
from completions.items import InputMessage
from completions.responses import ResponsesBody
from security.errors import InvalidRequest
from tests.completions.request_stage import HELLO
from tests.completions.responses_stage import answered, asked, refusal, sent
from tests.completions.test_request_refusals import CANARY, VALUES

NO_INPUT: list[Any] = [5, {}, True, HELLO[0]]
WITH_FORM = {"type": "json_schema", "name": "a", "schema": {}}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("messages", HELLO), ("max_tokens", 16), ("max_completion_tokens", 16), ("n", 1)),
        *(("stop", "x"), ("seed", 1), ("response_format", {"type": "text"}), ("logprobs", False)),
        *(("presence_penalty", 0), ("frequency_penalty", 0), ("reasoning_effort", "low")),
        *(("verbosity", "low"), ("audio", {}), ("api_key", "x"), ("base_url", "x")),
        *(("Stream", True), ("str", 1), ("[items]", 1)),
    ],
    ids=str,
)
def test_what_is_of_another_api_is_refused_by_name(name: str, value: Any) -> None:
    """A chat's parameter is none here, not even where its value changes nothing."""
    rejection = refusal(**{name: value})
    shown = name if name.isidentifier() else None
    assert (rejection.code, rejection.param) == ("unsupported_parameter", shown)


@pytest.mark.parametrize("name", ["name", "tool_calls", "annotations", "phase", "audio"])
def test_a_message_carries_text_only(name: str) -> None:
    """What SDKs send back as null is taken; anything in it is not."""
    assert sent(input=[{**HELLO[0], name: None}]) == sent()
    rejection = refusal(input=[{**HELLO[0], name: [CANARY]}])
    assert (rejection.code, rejection.param) == ("unsupported_parameter", f"input.0.{name}")


@pytest.mark.parametrize(
    ("part", "param"),
    [
        ({"type": "output_text", "text": "x", "annotations": [{}]}, "annotations"),
        ({"type": "output_text", "text": "x", "logprobs": [{}]}, "logprobs"),
        ({"type": "output_text", "text": "x", "parsed": {}}, "parsed"),
        ({"type": "refusal", "refusal": "x", "text": "x"}, "text"),
    ],
    ids=str,
)
def test_what_the_model_said_comes_back_as_text_only(part: dict[str, Any], param: str) -> None:
    """Citations and probabilities are not sent on, so none is taken."""
    rejection = refusal(input=[answered(part)])
    assert rejection.code == "unsupported_parameter"
    assert rejection.param == f"input.0.content.0.{param}"


def test_a_breakpoint_of_the_cache_is_refused() -> None:
    """To write to upstream's cache may cost more than to be read."""
    part = {"type": "input_text", "text": "x", "prompt_cache_breakpoint": {"mode": "explicit"}}
    rejection = refusal(input=[{"role": "user", "content": [part]}])
    assert rejection.code == "unsupported_parameter"
    assert rejection.param == "input.0.content.0.prompt_cache_breakpoint"


@pytest.mark.parametrize(
    ("said", "param", "detail"),
    [
        ({"input": HELLO * 6}, "input", "6 entries; at most 5"),
        ({"input": [{}] * 6}, "input", "6 entries; at most 5"),
        ({"input": []}, "input", "at least 1 item, not 0"),
        ({"input": [{"role": "user", "content": []}]}, "input.0.content", "at least 1"),
        ({"input": [answered(content=[])]}, "input.0.content", "at least 1"),
        ({"input": "🙂" * 101}, "input", "101 characters; at most 100"),
        ({"instructions": "x" * 101}, "instructions", "101 characters; at most 100"),
        (
            {"input": [*HELLO, {"role": "user", "content": "🙂" * 101}]},
            "input.1",
            "101 characters; at most 100",
        ),
        (
            {"input": [answered(*[{"type": "refusal", "refusal": "x" * 51}] * 2)]},
            "input.0",
            "102 characters; at most 100",
        ),
        ({"max_output_tokens": 15}, "max_output_tokens", "greater than or equal to 16"),
        ({"max_output_tokens": 0}, "max_output_tokens", "greater than or equal to 16"),
        ({"temperature": 2.1}, "temperature", "less than or equal to 2"),
        ({"top_p": -0.1}, "top_p", "greater than or equal to 0"),
        ({"input": [answered(id="x" * 129)]}, "input.0.id", "at most 128"),
    ],
    ids=str,
)
def test_a_limit_is_told_with_its_field_and_the_count(
    said: dict[str, Any], param: str, detail: str
) -> None:
    """What was too much, of what, and how much would be right."""
    rejection = refusal(**said)
    assert (rejection.code, rejection.param) == ("invalid_request", param)
    assert str(rejection.detail).startswith(param)
    assert detail in str(rejection.detail)


def test_every_limit_can_be_reached() -> None:
    """The last value that is allowed is allowed."""
    asked(input=[{"role": "user", "content": "🙂" * 100}] * 5, instructions="🙂" * 100)
    asked(input="🙂" * 100, temperature=2, top_p=0, max_output_tokens=16)
    asked(input=[answered(*[{"type": "refusal", "refusal": "x" * 50}] * 2, id="x" * 128)])


@pytest.mark.parametrize(
    ("said", "param"),
    [
        *(({"stream": value}, "stream") for value in (0, 1, "true")),
        *(({name: True}, name) for name in ("temperature", "top_p", "max_output_tokens")),
        *(({name: "1"}, name) for name in ("temperature", "top_p", "max_output_tokens")),
        ({"max_output_tokens": 16.0}, "max_output_tokens"),
        ({"temperature": 10**400}, "temperature"),
        ({"model": 5}, "model"),
        ({"instructions": ["x"]}, "instructions"),
        ({"instructions": HELLO}, "instructions"),
        *(({"input": value}, "input") for value in NO_INPUT),
        ({"input": ["hi"]}, "input.0"),
        ({"input": [[]]}, "input.0"),
        ({"input": [None]}, "input.0"),
        ({"input": [{"role": "user"}]}, "input.0.content"),
        ({"input": [{"content": "x"}]}, "input.0.role"),
        ({"input": [{"id": "msg_1"}]}, "input.0.role"),
        ({"input": [{"role": "user", "content": 5}]}, "input.0.content"),
        ({"input": [{"role": "user", "content": {}}]}, "input.0.content"),
        ({"input": [{"role": "user", "content": ["x"]}]}, "input.0.content.0"),
        ({"input": [{"role": "user", "content": [{"text": "x"}]}]}, "input.0.content.0.type"),
        ({"input": [answered({"type": "output_text"})]}, "input.0.content.0.text"),
        ({"input": [answered(status="done")]}, "input.0.status"),
        ({"input": [answered(phase="thinking")]}, "input.0.phase"),
        ({"input": [answered(id=5)]}, "input.0.id"),
        ({"reasoning": "low"}, "reasoning"),
        ({"reasoning": {"effort": "extreme"}}, "reasoning.effort"),
        ({"stream_options": []}, "stream_options"),
        ({"stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
        ({"text": "short"}, "text"),
        ({"text": {"verbosity": 1}}, "text.verbosity"),
        ({"text": {"format": "json"}}, "text.format"),
        ({"text": {"format": {}}}, "text.format.type"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
        *(
            ({"text": {"format": form}}, "text.format")
            for form in (
                *({"type": "json_schema"}, {"type": "json_schema", "name": "a"}),
                *({"type": "json_schema", "schema": {}}, {"type": "text", "name": "a"}),
                *({"type": "text", "schema": {}}, {"type": "json_object", "strict": False}),
                {"type": "text", "description": "x"},
            )
        ),
        *(
            ({"text": {"format": {**WITH_FORM, name: value}}}, f"text.format.{name}")
            for name, value in [
                *(("name", "a b"), ("name", "a" * 65), ("schema", []), ("strict", 1)),
                ("description", 1),
            ]
        ),
    ],
    ids=str,
)
def test_a_value_is_of_exactly_its_type(said: dict[str, Any], param: str) -> None:
    """Nothing is converted: no `0` for false, no true for 1, no text for a number."""
    rejection = refusal(**said)
    assert (rejection.code, rejection.param) == ("invalid_request", param)


@pytest.mark.parametrize("type_", [5, True, ["message"], {}, "", "Message"])
def test_a_type_is_one_of_those_told(type_: Any) -> None:
    """No other spelling of one is taken for it."""
    rejection = refusal(input=[{"type": type_, "role": "user", "content": "x"}])
    assert (rejection.code, rejection.param) == ("unsupported_parameter", "input.0.type")


@pytest.mark.parametrize("raw", [b"null", b"[]", b"1", b'"x"', b"true", b"{}", b"[{}]"])
def test_a_body_is_an_object_with_input(raw: bytes) -> None:
    """JSON of another kind is invalid, not malformed, and never an exception."""
    assert refusal(raw).code == "invalid_request"
    assert "ResponsesBody" not in str(refusal(raw).detail)
    assert refusal(input=None).detail == "input: Field required."


INPUT = b'{"input":"x",'
MALFORMED = {
    "empty": b"",
    "half": INPUT,
    "not UTF-8": b'{"input":"\xff"}',
    "byte order mark": b'\xef\xbb\xbf{"input":"x"}',
    "NaN": INPUT + b'"temperature":NaN}',
    "Infinity": INPUT + b'"top_p":-Infinity}',
    "infinite number": INPUT + b'"temperature":1e999}',
    "endless integer": INPUT + b'"max_output_tokens":' + b"9" * 5000 + b"}",
    "same name twice": INPUT + b'"input":"y"}',
    "same name twice below": b'{"input":[{"role":"user","role":"system","content":"hi"}]}',
    "raw control character": b'{"input":"a\x00b"}',
    "bomb of lists": b'{"input":' + b"[" * 100_000,
}


@pytest.mark.parametrize("raw", MALFORMED.values(), ids=MALFORMED)
def test_json_is_read_strictly(raw: bytes) -> None:
    """What could be read in two ways, or in none, is no JSON here."""
    assert refusal(raw).code == "malformed_json"


def test_deep_nesting_is_refused() -> None:
    """In a schema, in metadata, in what was thought: 64 levels and no more."""
    deep: Any = 1
    for _ in range(70):
        deep = [deep]
    thought = {"type": "reasoning", "summary": deep}
    form = {"type": "json_schema", "name": "a", "schema": {"x": deep}}
    said: list[dict[str, Any]] = [{"metadata": deep}, {"text": {"format": form}}]
    for more in [*said, {"input": [*HELLO, thought]}, {"input": deep}]:
        assert "nested deeper than 64 levels" in str(refusal(**more).detail)


@pytest.mark.parametrize("text", ["a\0b", "a\x1b[31mb", "a\x7fb", "a\x9bb", "\ufffe", "\U000e0041"])
def test_unsafe_text_is_refused_wherever_it_stands(text: str) -> None:
    """In what goes upstream, and in what would not: a name, an id, a thought, the metadata."""
    places: list[dict[str, Any]] = [
        *({"input": text}, {"instructions": text}, {text: 1}, {"metadata": {text: "x"}}),
        *({"user": text}, {"input": [answered({"type": "output_text", "text": text})]}),
        {"input": [*HELLO, {"type": "reasoning", "encrypted_content": text}]},
        {"input": [answered(id=text)]},
    ]
    for said in places:
        rejection = refusal(**said)
        assert rejection.code == "invalid_request"
        assert "which is not allowed" in str(rejection.detail)
    assert refusal(b'{"input":"\\ud800"}').code == "invalid_request"


NAMES = ["model", "input", "stream", "instructions", "tools", "text", "reasoning", "include", "x"]


@given(st.dictionaries(st.sampled_from([*NAMES, "stream_options"]), VALUES, min_size=1))
def test_no_value_is_ever_repeated(said: dict[str, Any]) -> None:
    """Neither in the detail nor in the name of what is wrong, wherever the value stood."""
    try:
        asked(**said)
    except InvalidRequest as rejection:
        told = f"{rejection.detail} {rejection.param} {rejection} {rejection.__cause__}"
        shown = CANARY in told
    else:
        shown = False
    assert not shown


class Patient(Strict):
    """The control: the same list of items, looked at to its end."""

    input: list[InputMessage]


@pytest.mark.parametrize(
    "items",
    [
        [{}] * 1000,
        [{"role": "user", "content": 5}] * 1000,
        [{"role": "user", "content": [1] * 1000}],
        [{"role": "assistant", "content": [{"type": "output_text"}] * 1000}],
        [{"type": "function_call_output", "call_id": "c", "output": [{}] * 1000}],
    ],
    ids=["empty", "numbers", "parts", "parts of an answer", "parts of a result"],
)
def test_the_first_mistake_is_enough(items: list[Any]) -> None:
    """A quarter of a megabyte of mistakes is no second of work: nobody counts them."""
    assert mistakes(ResponsesBody, items) <= 4
    if len(items) > 1:
        assert mistakes(Patient, items) >= 1000
        assert str(refusal(input=items).detail).startswith("input has 1000 entries")


def mistakes(schema: type[Strict], items: list[Any]) -> int:
    """How many mistakes a schema finds in these items."""
    with pytest.raises(ValueError, match="validation error") as refused:
        schema.model_validate({"input": items})
    return int(str(refused.value).split()[0])
