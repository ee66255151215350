"""What the tests of visitors' own keys stand on: bodies and cut answers."""

import json
from typing import Any

import aiohttp

from tests.stage import Answer, Visitor

OWN_KEY = "sk-visitor-canary-0123456789abcdef"
JSON = {"Content-Type": "application/json"}
CHAT = "/api/chat"
COMPLETIONS = "/v1/chat/completions"


def own_body(user_message: Any = "hello", **changed: Any) -> bytes:
    """A good body of POST /api/chat."""
    return json.dumps({"user_message": user_message, "api_key": OWN_KEY, **changed}).encode()


async def ask(visitor: Visitor, user_message: str = "hello", **changed: Any) -> Answer:
    """One turn of POST /api/chat, read to its end."""
    return await visitor.post(own_body(user_message, **changed), JSON, CHAT)


def by_bearer(key: str = OWN_KEY, **more: str) -> dict[str, str]:
    """The headers of any OpenAI client with a key, and of nothing that knows Keyturn."""
    return {**JSON, "Authorization": f"Bearer {key}", **more}


async def complete(visitor: Visitor, content: str = "hello", **changed: Any) -> Answer:
    """One turn of POST /v1/chat/completions by an own key, read to its end."""
    return await visitor.post(visitor.body(content, **changed), by_bearer())


async def cut_text(visitor: Visitor, body: bytes) -> tuple[int, bytes, bool]:
    """Status and text of an answer of POST /api/chat, and whether its end is missing."""
    async with visitor.session.post(visitor.url + CHAT, data=body, headers=JSON) as answer:
        text = b""
        try:
            async for piece in answer.content.iter_any():
                text += piece
        except (aiohttp.ClientPayloadError, ConnectionError):
            return answer.status, text, True
        return answer.status, text, False
