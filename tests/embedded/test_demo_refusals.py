"""What the demo upstream refuses, and how: embedded/demo_upstream.py."""

import openai
import pytest
from aiohttp import ClientSession, ClientTimeout
from openai import AsyncOpenAI

MODEL = "gpt-4.1-mini"
LIMIT = ClientTimeout(total=20)


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("chat/completions", {"messages": [{"role": "user", "content": "Hi"}]}, "model"),
        ("chat/completions", {"model": MODEL}, "messages"),
        ("chat/completions", {"model": MODEL, "messages": []}, "messages"),
        ("chat/completions", {"model": MODEL, "messages": [{"role": "boss"}]}, "messages"),
        (
            "chat/completions",
            {"model": MODEL, "messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "messages[0].content",
        ),
        (
            "chat/completions",
            {"model": MODEL, "messages": [{"role": "user"}], "max_tokens": 0},
            "max_tokens",
        ),
        (
            "chat/completions",
            {
                "model": MODEL,
                "messages": [{"role": "user"}],
                "max_tokens": 9,
                "max_completion_tokens": 9,
            },
            "max_tokens",
        ),
        (
            "chat/completions",
            {"model": MODEL, "messages": [{"role": "user"}], "stream_options": {}},
            "stream_options",
        ),
        ("responses", {"model": MODEL}, "input"),
        ("responses", {"model": MODEL, "input": "Hi", "stream": "yes"}, "stream"),
        (
            "responses",
            {"model": MODEL, "input": "Hi", "max_output_tokens": -1},
            "max_output_tokens",
        ),
    ],
)
async def test_bad_input_is_refused_by_name(
    client: AsyncOpenAI, path: str, body: dict[str, object], param: str
) -> None:
    """What OpenAI would refuse is a 400 in its shape that names the field."""
    with pytest.raises(openai.BadRequestError) as caught:
        await client.post(path, body=body, cast_to=object)
    assert caught.value.param == param
    assert caught.value.type == "invalid_request_error"


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"text"', b"\xff", b"[" * 100_000])
async def test_a_body_that_is_no_object_is_refused(base_url: str, body: bytes) -> None:
    """A body that is no JSON object is a 400 in OpenAI's shape, whatever it is."""
    async with (
        ClientSession(timeout=LIMIT) as session,
        session.post(f"{base_url}/chat/completions", data=body) as answered,
    ):
        assert answered.status == 400
        assert (await answered.json())["error"]["type"] == "invalid_request_error"


async def test_half_a_character_is_answered(base_url: str) -> None:
    """A lone surrogate, which no UTF-8 can hold, is answered all the same."""
    async with (
        ClientSession(timeout=LIMIT) as session,
        session.post(
            f"{base_url}/responses", data=b'{"model":"m","input":"a\\ud800b"}'
        ) as answered,
    ):
        assert answered.status == 200
        assert "“a?b”" in (await answered.json())["output"][0]["content"][0]["text"]


async def test_unknown_models_and_paths_are_not_found(client: AsyncOpenAI) -> None:
    """A model or a path that is not there is a 404 in OpenAI's shape."""
    with pytest.raises(openai.NotFoundError) as caught:
        await client.models.retrieve("gpt-none")
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError, match="Not Found"):
        await client.get("/nothing", cast_to=object)


async def test_a_wrong_method_is_refused(base_url: str) -> None:
    """A method that a path does not know is a 405 that says which it knows."""
    async with (
        ClientSession(timeout=LIMIT) as session,
        session.get(f"{base_url}/chat/completions") as answered,
    ):
        assert answered.status == 405
        assert answered.headers["Allow"] == "POST"
        assert "error" in await answered.json()
