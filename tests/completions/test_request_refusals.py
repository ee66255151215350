"""What may not be asked: each refusal names what is wrong, and repeats nothing of what was said."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from completions.body import Strict
from completions.chat import ChatBody
from completions.messages import Message
from security.errors import InvalidRequest
from tests.completions.request_stage import HELLO, asked, refusal, sent

CANARY = "canary-5f3a"
FORM = "response_format.json_schema"


NOT_NEUTRAL: dict[str, list[Any]] = {
    "n": [0, 2, 128, True, 1.0, "1", [1]],
    "store": [True, 0, 1, "false", {}],
    "logprobs": [True, 0, 1, "false"],
    "service_tier": ["flex", "priority", "AUTO", "", 1],
}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("functions", []),
        ("top_logprobs", 5),
        ("logit_bias", {}),
        ("function_call", "auto"),
        ("audio", {"voice": "a"}),
        ("modalities", ["audio"]),
        ("prediction", {"type": "content", "content": "x"}),
        ("web_search_options", {}),
        ("prompt_cache_key", "x"),
        ("safety_identifier", "x"),
        ("safety_identifier", ""),
        ("api_key", "x"),
        ("base_url", "x"),
        ("Stream", True),
        ("str", 1),
        ("int", 1),
        ("list", 1),
    ],
    ids=str,
)
def test_what_costs_or_stores_more_is_refused_by_name(name: str, value: Any) -> None:
    """Not only the ones we know: whatever is not on the list, and whatever is of another type."""
    rejection = refusal(**{name: value})
    assert (rejection.code, rejection.param) == ("unsupported_parameter", name)
    assert rejection.detail == f"{name} is not supported here."


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, value) for name, values in NOT_NEUTRAL.items() for value in values],
    ids=str,
)
def test_what_changes_nothing_is_taken_and_all_else_of_it_refused(name: str, value: Any) -> None:
    """The one value that is no other than leaving the parameter out."""
    rejection = refusal(**{name: value})
    assert (rejection.code, rejection.param) == ("unsupported_parameter", name)
    assert rejection.detail == f"{name}: only its default is supported here."


@pytest.mark.parametrize("type_", ["image_url", "input_audio", "file", "refusal", "input_text", ""])
def test_only_text_is_taken_as_content(type_: str) -> None:
    """Images, audio and files are unsupported, wherever in the parts they stand."""
    parts = [{"type": "text", "text": "look:"}, {"type": type_, type_: {"url": CANARY}}]
    rejection = refusal(messages=[{"role": "user", "content": parts}])
    assert rejection.code == "unsupported_parameter"
    assert rejection.param == "messages.0.content.1.type"
    assert rejection.detail == f"{rejection.param}: only the type text is supported here."


@pytest.mark.parametrize(
    "name", ["tool_calls", "function_call", "audio", "refusal", "tool_call_id"]
)
def test_a_message_carries_text_only(name: str) -> None:
    """What SDKs send back as null is taken; anything in it is not."""
    said = {"role": "assistant", "content": "x", "annotations": []}
    assert sent(messages=[{**said, name: None}]) == sent(messages=[said])
    rejection = refusal(messages=[{**said, name: [CANARY]}])
    assert (rejection.code, rejection.param) == ("unsupported_parameter", f"messages.0.{name}")


def test_null_says_nothing() -> None:
    """Any parameter that is null is as if it were left out; the messages may not be."""
    assert asked(n=None, tools=None, stream=None, whatever=None).unlimited == asked().unlimited
    assert refusal(messages=None).detail == "messages: Field required."
    assert refusal(messages=[{"role": "user", "content": None}]).param == "messages.0.content"
    assert refusal(messages=[None]).param == "messages.0"


@pytest.mark.parametrize(
    ("said", "param", "detail"),
    [
        ({"messages": HELLO * 6}, "messages", "6 entries; at most 5"),
        ({"messages": [{}] * 6}, "messages", "6 entries; at most 5"),
        ({"messages": []}, "messages", "at least 1 item, not 0"),
        ({"messages": [{"role": "user", "content": []}]}, "messages.0.content", "at least 1"),
        (
            {"messages": [*HELLO, {"role": "user", "content": "🙂" * 101}]},
            "messages.1.content",
            "101 characters; at most 100",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "x" * 51}] * 2}]},
            "messages.0.content",
            "102 characters; at most 100",
        ),
        ({"stop": ["a"] * 5}, "stop", "at most 4 items, not 5"),
        ({"stop": []}, "stop", "at least 1 item, not 0"),
        ({"temperature": 2.1}, "temperature", "less than or equal to 2"),
        ({"top_p": -0.1}, "top_p", "greater than or equal to 0"),
        ({"presence_penalty": -2.1}, "presence_penalty", "greater than or equal to -2"),
        ({"frequency_penalty": 2.1}, "frequency_penalty", "less than or equal to 2"),
        ({"seed": 2**63}, "seed", "less than 9223372036854775808"),
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
    asked(messages=[{"role": "user", "content": "🙂" * 100}] * 5)
    asked(messages=[{"role": "user", "content": [{"type": "text", "text": "x" * 50}] * 2}])
    asked(stop=["a"] * 4, temperature=2, top_p=0, presence_penalty=-2, frequency_penalty=2)
    asked(seed=2**63 - 1)


@pytest.mark.parametrize(
    ("said", "param"),
    [
        ({"stream": 0}, "stream"),
        ({"stream": 1}, "stream"),
        ({"stream": "true"}, "stream"),
        *(({name: True}, name) for name in ("temperature", "top_p", "presence_penalty", "seed")),
        *(({name: "1"}, name) for name in ("temperature", "frequency_penalty", "seed")),
        ({"seed": 1.0}, "seed"),
        ({"temperature": 10**400}, "temperature"),
        ({"stop": 5}, "stop"),
        ({"stop": {"a": "b"}}, "stop"),
        ({"stop": ["a", 1]}, "stop.1"),
        ({"model": 5}, "model"),
        ({"messages": {}}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": ["hi"]}, "messages.0"),
        ({"messages": [{"role": "user"}]}, "messages.0.content"),
        ({"messages": [{"content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": {}}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": ["x"]}]}, "messages.0.content.0"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, None),
        ({"messages": [{"role": "user", "content": [{"text": "x"}]}]}, "messages.0.content.0.type"),
        ({"messages": [{"role": "user", "content": "x", "name": "a b"}]}, "messages.0.name"),
        ({"messages": [{"role": "user", "content": "x", "name": "a\n"}]}, "messages.0.name"),
        ({"reasoning_effort": "extreme"}, "reasoning_effort"),
        ({"verbosity": 1}, "verbosity"),
        ({"stream_options": []}, "stream_options"),
        ({"stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
        ({"response_format": "json"}, "response_format"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"response_format": {"type": "text", "json_schema": {"name": "a"}}}, "response_format"),
        *(
            ({"response_format": {"type": "json_schema", "json_schema": form}}, f"{FORM}.{name}")
            for form, name in [
                ({}, "name"),
                ({"name": "a b"}, "name"),
                ({"name": "a" * 65}, "name"),
                ({"name": "a", "schema": []}, "schema"),
                ({"name": "a", "strict": 1}, "strict"),
                ({"name": "a", "description": 1}, "description"),
            ]
        ),
    ],
    ids=str,
)
def test_a_value_is_of_exactly_its_type(said: dict[str, Any], param: str | None) -> None:
    """Nothing is converted: no `1` for true, no true for 1, no text for a number."""
    rejection = refusal(**said)
    assert rejection.code == "invalid_request"
    assert param is None or rejection.param == param


@pytest.mark.parametrize("raw", [b"null", b"[]", b"1", b'"x"', b"true", b"{}", b"[{}]"])
def test_a_body_is_an_object_with_messages(raw: bytes) -> None:
    """JSON of another kind is invalid, not malformed, and never an exception."""
    assert refusal(raw).code == "invalid_request"
    assert "ChatBody" not in str(refusal(raw).detail)


@pytest.mark.parametrize("name", ["a b", "a" * 65, "", "<b>", "ключ", "a\\nb", "list[int]", "a,b"])
def test_a_name_is_repeated_only_where_it_is_plain(name: str) -> None:
    """64 of letters, digits and three signs; else it is said that there was one."""
    raw = f'{{"messages":[{{"role":"user","content":"x"}}],"{name}":1}}'.encode()
    rejection = refusal(raw)
    assert (rejection.code, rejection.param) == ("unsupported_parameter", None)
    assert rejection.detail == "A parameter is not supported here."


VALUES = st.recursive(
    st.just(CANARY) | st.just(f"sk-{CANARY}") | st.just([CANARY]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["type", "text", "role", "content", "name"]), inner)
    ),
    max_leaves=4,
)
NAMES = ["model", "messages", "stream", "stop", "seed", "n", "tools", "response_format", "x"]


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


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"messages": "x"}, "messages: Input should be an array."),
        ({"messages": ["x"]}, "messages.0: Input should be an object."),
        ({"stream": "x"}, "stream: Input should be true or false."),
        ({"model": 5}, "model: Input should be a string."),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": 1}}},
            "response_format.json_schema.schema: Input should be an object.",
        ),
    ],
    ids=str,
)
def test_a_type_is_named_in_the_words_of_json(said: dict[str, Any], told: str) -> None:
    """Whoever sends it writes no Python: no dictionary, no list, no boolean."""
    assert refusal(**said).detail == told


def test_the_librarys_own_words_would_repeat_it() -> None:
    """The control: pydantic prints what it was given."""
    with pytest.raises(ValidationError, match=CANARY):
        ChatBody.model_validate({"messages": HELLO, "model": [CANARY]})
    assert CANARY not in str(refusal(model=[CANARY]).detail)


class Patient(Strict):
    """The control: the same list of messages, looked at to its end."""

    messages: list[Message]


@pytest.mark.parametrize(
    "messages",
    [
        [{}] * 1000,
        [{"role": "user", "content": 5}] * 1000,
        [{"role": "user", "content": [1] * 1000}],
        [{"role": "user", "content": [{"type": "text"}] * 1000}],
    ],
    ids=["empty", "numbers", "parts", "empty parts"],
)
def test_the_first_mistake_is_enough(messages: list[Any]) -> None:
    """A quarter of a megabyte of mistakes is no second of work: nobody counts them."""
    assert mistakes(ChatBody, messages) <= 4
    if len(messages) > 1:
        assert mistakes(Patient, messages) >= 1000
        assert str(refusal(messages=messages).detail).startswith("messages has 1000 entries")


def mistakes(schema: type[Strict], messages: list[Any]) -> int:
    """How many mistakes a schema finds in these messages."""
    with pytest.raises(ValidationError) as refused:
        schema.model_validate({"messages": messages})
    return refused.value.error_count()
