"""Rows of the failure table for what upstream does before the first byte."""

import asyncio
from typing import Any

import aiohttp

from tests.stage import Answer

SECRET = "sk-a-text-of-upstream's"
UNAVAILABLE = (502, "upstream_unavailable")


def error(code: str | None = None) -> Any:
    """An error as OpenAI says it."""
    return {"error": {"message": SECRET, "type": "invalid_request_error", "code": code}}


async def must_be(row: tuple[int, str], answer: Answer) -> None:
    """An answer is this row: status, code, and a token to go on with."""
    assert (answer.status, answer.code) == row, answer.body
    assert answer.json["chain"] == "advanced"
    assert answer.token
    assert answer.headers["x-should-retry"] == "false"
    assert SECRET not in answer.body.decode()
    assert all(SECRET not in value for value in answer.headers.values())


async def read(asked: "asyncio.Task[aiohttp.ClientResponse]") -> Answer:
    """The whole of an answer under way."""
    answer = await asked
    return Answer(answer.status, answer.headers, await answer.read())
