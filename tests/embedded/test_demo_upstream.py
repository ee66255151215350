"""The demo upstream, as the real SDK sees it: embedded/demo_upstream.py."""

import asyncio
import json

import pytest
from aiohttp import ClientSession, ClientTimeout
from openai import AsyncOpenAI
from openai.types.responses import ResponseOutputMessage

from embedded.child_upstream import child_upstream

MODEL = "gpt-4.1-mini"
LIMIT = ClientTimeout(total=20)
EVENTS_BEFORE = [
    "response.created",
    "response.in_progress",
    "response.output_item.added",
    "response.content_part.added",
]
EVENTS_AFTER = [
    "response.output_text.done",
    "response.content_part.done",
    "response.output_item.done",
]


async def test_models_are_listed(client: AsyncOpenAI) -> None:
    """The default models are there, and each can be asked for."""
    names = [each.id async for each in client.models.list()]
    assert names == ["gpt-4.1-mini", "gpt-4o-mini", "gpt-3.5-turbo"]
    assert (await client.models.retrieve(MODEL)).id == MODEL


async def test_a_chat_is_answered_whole(client: AsyncOpenAI) -> None:
    """Without a stream there is one message about the visitor's words, with usage."""
    done = await client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "Grüß Gott 🗝️"}]
    )
    assert (done.choices[0].message.content or "").startswith("You wrote: “Grüß Gott 🗝️”.")
    assert done.choices[0].finish_reason == "stop"
    assert done.model == MODEL
    assert done.usage is not None
    assert done.usage.prompt_tokens_details is not None
    assert done.usage.prompt_tokens_details.cached_tokens == 0
    assert done.usage.total_tokens == done.usage.prompt_tokens + done.usage.completion_tokens


async def test_a_chat_is_streamed_word_by_word(client: AsyncOpenAI) -> None:
    """The stream spells the same reply, one token a chunk, and no chunk is without a choice."""
    whole = await client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "Hello"}]
    )
    stream = await client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "Hello"}], stream=True
    )
    chunks = [chunk async for chunk in stream]
    assert chunks[0].choices[0].delta.role == "assistant"
    texts = [chunk.choices[0].delta.content or "" for chunk in chunks]
    assert "".join(texts) == whole.choices[0].message.content
    assert whole.usage is not None
    assert len([text for text in texts if text]) == whole.usage.completion_tokens
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * (len(chunks) - 1) + [
        "stop"
    ]
    assert all(chunk.usage is None for chunk in chunks)
    assert len({chunk.id for chunk in chunks}) == 1


async def test_usage_comes_last_when_asked_for(client: AsyncOpenAI) -> None:
    """With include_usage one more chunk has no choices and the same usage as without a stream."""
    whole = await client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "Hello"}]
    )
    stream = await client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "Hello"}],
        stream=True,
        stream_options={"include_usage": True},
    )
    *others, last = [chunk async for chunk in stream]
    assert last.choices == []
    assert last.usage == whole.usage
    assert others[-1].choices[0].finish_reason == "stop"
    assert all(chunk.usage is None for chunk in others)


async def test_the_sdks_stream_helper_works(client: AsyncOpenAI) -> None:
    """The helper that gathers a stream ends with the whole completion."""
    async with client.chat.completions.stream(
        model=MODEL, messages=[{"role": "user", "content": "Hello"}]
    ) as stream:
        done = await stream.get_final_completion()
    assert (done.choices[0].message.content or "").endswith("start the server again.")


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
async def test_a_chat_is_cut_at_its_limit(client: AsyncOpenAI, field: str) -> None:
    """A limit is kept to the token, and the finish reason says so, streamed or not."""
    done = await client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "Hello"}], extra_body={field: 5}
    )
    assert done.choices[0].finish_reason == "length"
    assert done.usage is not None
    assert done.usage.completion_tokens == 5
    stream = await client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "Hello"}],
        stream=True,
        extra_body={field: 5},
    )
    chunks = [chunk async for chunk in stream]
    assert len([1 for chunk in chunks if chunk.choices[0].delta.content]) == 5
    assert chunks[-1].choices[0].finish_reason == "length"


async def test_a_response_is_answered_whole(client: AsyncOpenAI) -> None:
    """Without a stream the Responses API answers the same words, with usage."""
    done = await client.responses.create(model=MODEL, input="Hello", instructions="Be brief.")
    assert done.output_text.startswith("You wrote: “Hello”. That is the first message ")
    assert done.status == "completed"
    assert done.usage is not None
    assert done.usage.total_tokens == done.usage.input_tokens + done.usage.output_tokens


async def test_a_response_is_streamed_in_the_real_grammar(client: AsyncOpenAI) -> None:
    """Events come in the real order, numbered from 0, and end with the whole response."""
    stream = await client.responses.create(
        model=MODEL, input=[{"role": "user", "content": "Hello"}], stream=True
    )
    events = [event async for event in stream]
    kinds = [event.type for event in events]
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert kinds == [
        *EVENTS_BEFORE,
        *["response.output_text.delta"] * len(deltas),
        *EVENTS_AFTER,
        "response.completed",
    ]
    last = events[-1]
    assert last.type == "response.completed"
    assert last.response.output_text == "".join(deltas)
    assert last.response.usage is not None
    assert last.response.usage.output_tokens == len(deltas)


async def test_the_sdks_response_helper_works(client: AsyncOpenAI) -> None:
    """The helper that gathers a response stream, strict about the grammar, ends with all of it."""
    async with client.responses.stream(model=MODEL, input="Hello") as stream:
        done = await stream.get_final_response()
    assert done.output_text.endswith("start the server again.")


async def test_a_response_is_cut_at_its_limit(client: AsyncOpenAI) -> None:
    """A limit is kept to the token, and the response is incomplete, streamed or not."""
    done = await client.responses.create(model=MODEL, input="Hello", max_output_tokens=16)
    assert done.status == "incomplete"
    assert done.incomplete_details is not None
    assert done.incomplete_details.reason == "max_output_tokens"
    assert isinstance(done.output[0], ResponseOutputMessage)
    assert done.output[0].status == "incomplete"
    assert done.usage is not None
    assert done.usage.output_tokens == 16
    stream = await client.responses.create(
        model=MODEL, input="Hello", max_output_tokens=16, stream=True
    )
    assert [event.type async for event in stream][-1] == "response.incomplete"


async def test_a_stream_ends_with_done_and_names_its_type(base_url: str) -> None:
    """On the wire a chat stream is server-sent events with [DONE] at the end."""
    body = {"model": MODEL, "stream": True, "messages": [{"role": "user", "content": "Ü"}]}
    async with (
        ClientSession(timeout=LIMIT) as session,
        session.post(f"{base_url}/chat/completions", json=body) as answered,
    ):
        assert answered.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        text = await answered.text()
    frames = text.split("\n\n")
    assert frames[-2:] == ["data: [DONE]", ""]
    assert all(json.loads(frame.removeprefix("data: ")) for frame in frames[:-2])
    assert "“Ü”." in "".join(
        json.loads(frame[6:])["choices"][0]["delta"].get("content", "") for frame in frames[:-2]
    )


async def test_a_response_stream_names_its_events_and_has_no_done(base_url: str) -> None:
    """On the wire each event of a response carries its type as its name."""
    body = {"model": MODEL, "stream": True, "input": "Hello"}
    async with (
        ClientSession(timeout=LIMIT) as session,
        session.post(f"{base_url}/responses", json=body) as answered,
    ):
        frames = (await answered.text()).split("\n\n")
    assert frames.pop() == ""
    for frame in frames:
        name, _, data = frame.partition("\n")
        assert name == "event: " + json.loads(data.removeprefix("data: "))["type"]


async def test_words_take_their_time() -> None:
    """With a delay the first words arrive long before the last ones."""
    with child_upstream(delay_ms=10) as url:
        async with AsyncOpenAI(api_key="demo", base_url=url, max_retries=0, timeout=20) as sdk:
            stream = await sdk.chat.completions.create(
                model=MODEL, messages=[{"role": "user", "content": "Hello"}], stream=True
            )
            now = asyncio.get_running_loop().time
            times = [now() async for _ in stream]
    assert times[-1] - times[0] >= (len(times) - 1) * 0.009
