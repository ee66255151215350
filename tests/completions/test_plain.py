"""The usual body is read in a short way, and to the same end as in the long one."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from completions.body import read_json
from completions.plain import plain_messages
from completions.request import Policy
from security.errors import InvalidRequest
from tests.completions import request_stage, responses_stage
from tests.completions.request_stage import HELLO, LOCKED, POLICY

POLICIES = [
    POLICY,
    replace(LOCKED, unstored=True),
    replace(POLICY, allow_tools=True, max_messages=2, max_message_chars=5),
]
STAGES = [("messages", request_stage), ("input", responses_stage)]

ODD: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, 0, 1.0, "", "user", [], {}, ["user"], [{"text": "x"}]]
)
ROLE = st.sampled_from(["system", "developer", "user", "assistant", "tool"])
CONTENT = st.sampled_from(["", "hi", "grüße", "x" * 100, "x" * 101, "\x07", "\ufffe"])
NAMED = st.sampled_from(["role", "content", "name", "type", "tool_calls", "id", "x"])


def mostly(usual: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """What is usual, nine times of ten."""
    return st.integers(0, 9).flatmap(lambda die: usual if die else ODD)


MESSAGE = st.tuples(
    st.permutations(["role", "content"]), mostly(ROLE), mostly(CONTENT), mostly(st.just({}))
).map(lambda drawn: ordered(*drawn)) | st.dictionaries(NAMED, ODD)


def ordered(names: list[str], role: Any, content: Any, more: Any) -> dict[str, Any]:
    """A message whose names stand in this order."""
    said = {"role": role, "content": content}
    return {name: said[name] for name in names} | ({} if more == {} else {"name": more})


MESSAGES = st.lists(st.sampled_from(HELLO), max_size=7) | mostly(
    st.lists(mostly(MESSAGE), max_size=6)
)
NOTHING = {"model": None, "stream": None, "stream_options": None}
USAGE = {"stream": True, "stream_options": {"include_usage": True}}
OPTIONS = st.dictionaries(
    st.sampled_from(["include_usage", "include_obfuscation"]), st.booleans() | ODD
)
SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "model": st.sampled_from(POLICY.models) | ODD,
        "stream": st.booleans() | ODD,
        "stream_options": st.just({"include_usage": True}) | OPTIONS | ODD,
    },
)


def outcome(stage: Any, policy: Policy, said: dict[str, Any]) -> Any:
    """The request that a body makes, all but the bytes that came; or its refusal."""
    try:
        request = stage.asked(json.dumps(said).encode(), policy)
    except InvalidRequest as refused:
        return refused.code, refused.detail, refused.param
    return replace(request, raw=b"")


@pytest.mark.parametrize(("name", "stage"), STAGES)
@settings(max_examples=500)
@given(messages=MESSAGES, more=SETTINGS, policy=st.sampled_from(POLICIES))
def test_both_ways_come_to_the_same(
    name: str, stage: Any, messages: Any, more: dict[str, Any], policy: Policy
) -> None:
    """Bytes, price and refusal: `user` says nothing, and leads a body the long way."""
    usual, longer = {name: messages, **more}, {name: messages, **more, "user": 0}
    assert plain_messages(longer, name, policy) == []
    assert outcome(stage, policy, usual) == outcome(stage, policy, longer)


@pytest.mark.parametrize("name", ["messages", "input"])
def test_the_usual_body_goes_the_short_way(name: str) -> None:
    """With and without its settings; and the control: whatever else it says, it does not."""
    for more in ({}, {"model": "old-model"}, {"stream": True}, NOTHING, USAGE):
        body = read_json(json.dumps({**more, name: HELLO}).encode())
        assert plain_messages(body, name, POLICY) == HELLO
        assert plain_messages({**body, "seed": 1}, name, POLICY) == []
        assert plain_messages({**body, "stream_options": {}}, name, POLICY) == []
    assert plain_messages({name: HELLO, "model": "another"}, name, POLICY) == []
    assert plain_messages({name: HELLO * 6}, name, POLICY) == []


@pytest.mark.parametrize(("name", "stage"), STAGES)
@pytest.mark.parametrize("said", [True, False, None, 1, 1.0, "x", [], {}])
def test_what_a_stream_tells_means_the_same_both_ways(name: str, stage: Any, said: Any) -> None:
    """Nothing but `true` is taken for it."""
    for options in ({"include_usage": said}, {"include_usage": True, "include_obfuscation": said}):
        usual = {name: HELLO, "stream": True, "stream_options": options}
        assert outcome(stage, POLICY, usual) == outcome(stage, POLICY, {**usual, "user": 0})
    assert stage.asked(json.dumps({name: HELLO, **USAGE}).encode(), POLICY).keep_usage


@pytest.mark.parametrize("role", ["system", "developer"])
def test_no_instruction_goes_the_short_way_where_the_prompt_is_locked(role: str) -> None:
    """It is for the long way to refuse it."""
    body = {"messages": [{"role": role, "content": "x"}]}
    assert plain_messages(body, "messages", POLICY)
    assert plain_messages(body, "messages", LOCKED) == []
