"""What the demo upstream understands and says: embedded/demo_answers.py."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedded.demo_answers import (
    Asked,
    BadRequest,
    answer,
    first_words,
    read_chat,
    read_responses,
    tokens,
)

TEXTS = st.text(max_size=300)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=12,
)
FIELDS = (
    "model",
    "messages",
    "input",
    "instructions",
    "stream",
    "stream_options",
    "max_tokens",
    "max_completion_tokens",
    "max_output_tokens",
)
MESSAGES = st.lists(
    st.fixed_dictionaries({}, optional={"role": st.just("user") | JSON, "content": JSON}) | JSON,
    max_size=3,
)
BODIES = JSON | st.fixed_dictionaries(
    {}, optional={name: MESSAGES | JSON | st.just("gpt-4.1-mini") for name in FIELDS}
)


def asked(*said: str, limit: int | None = None) -> Asked:
    """A conversation in which the visitor said these things."""
    return Asked("gpt-4.1-mini", [("user", text) for text in said], limit, stream=False)


@settings(deadline=None)
@given(BODIES)
def test_any_body_is_understood_or_refused(body: Any) -> None:
    """Whatever JSON comes, it is an Asked or a BadRequest, never another error."""
    for read in (read_chat, read_responses):
        with suppress(BadRequest):
            assert answer(read(body)).text


@given(st.lists(TEXTS, min_size=1, max_size=4))
def test_a_prompt_has_fewer_tokens_than_bytes(said: list[str]) -> None:
    """The prompt's tokens never exceed the bytes of its JSON."""
    messages = [{"role": "user", "content": text} for text in said]
    size = len(json.dumps(messages, ensure_ascii=False).encode("utf-8", "replace"))
    assert len(said) <= tokens(asked(*said).turns) <= size


@given(TEXTS, st.integers(1, 200))
def test_a_limit_cuts_and_nothing_else_does(text: str, limit: int) -> None:
    """The reply is the beginning of the whole reply, at most the limit long, cut iff shorter."""
    whole, cut = answer(asked(text)), answer(asked(text, limit=limit))
    assert not whole.cut
    assert cut.pieces == whole.pieces[:limit]
    assert cut.cut == (limit < len(whole.pieces))


def test_the_reply_speaks_of_the_visitors_last_message() -> None:
    """The reply quotes the last message, counts the turns, and says how to get real answers."""
    text = answer(asked("Hello", "Tell me  about\nlocks")).text
    assert text.startswith("You wrote: “Tell me about locks”. That is message number 2 ")
    assert "Keyturn's demo upstream" in text
    assert "set OPENAI_API_KEY" in text


def test_the_reply_knows_a_question_and_a_beginning() -> None:
    """A question is answered as one; the first message is called the first."""
    text = answer(asked("Who are you?")).text
    assert text.startswith("You ask: “Who are you?” ")
    assert "That is the first message of our conversation." in text


@pytest.mark.parametrize("said", ["", "  \n "])
def test_an_empty_message_is_answered_too(said: str) -> None:
    """There is a reply even when there is nothing to quote."""
    assert answer(asked(said)).text.startswith("You wrote nothing that I can quote.")


@given(TEXTS)
def test_a_quotation_is_one_short_line(text: str) -> None:
    """A quotation has at most sixty characters and an ellipsis, and no line break."""
    quoted = first_words(text)
    assert len(quoted) <= 61
    assert quoted.splitlines() in ([], [quoted])
    assert quoted == " ".join(text.split()) or quoted.endswith("…")


def test_long_conversations_are_cached() -> None:
    """From 1024 prompt tokens on, all but the last message counts as cached, in steps of 128."""
    long = answer(asked("word " * 1100, "and now?"))
    assert long.prompt_tokens == 1100 + 1 + 4 + 2 + 4
    assert long.cached_tokens == 1024
    assert answer(asked("word " * 900, "and now?")).cached_tokens == 0


def test_text_parts_and_instructions_are_read() -> None:
    """Arrays of text parts and instructions become turns like any other."""
    body = {
        "model": "gpt-4.1-mini",
        "instructions": "Be brief.",
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "Hello"}]},
            {"role": "assistant", "content": [{"type": "output_text", "text": "Hi"}]},
            {"role": "user", "content": "Bye"},
        ],
    }
    assert read_responses(body).turns == [
        ("system", "Be brief."),
        ("user", "Hello"),
        ("assistant", "Hi"),
        ("user", "Bye"),
    ]


def test_a_call_and_what_it_gave_are_part_of_the_conversation() -> None:
    """Items of Responses that carry a call are understood; one without its text is refused."""
    call = {"type": "function_call", "call_id": "c", "name": "weather", "arguments": "{}"}
    gave = {"type": "function_call_output", "call_id": "c", "output": "12 °C"}
    user = {"role": "user", "content": "How is the weather?"}
    body = {"model": "gpt-4.1-mini", "input": [user, call, gave]}
    said = read_responses(body)
    assert said.turns == [("user", user["content"]), ("assistant", "{}"), ("tool", "12 °C")]
    with pytest.raises(BadRequest, match=r"input\[0\]"):
        read_responses({**body, "input": [{**gave, "output": 7}]})
