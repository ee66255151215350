"""The proxy that is written first: FastAPI, the openai SDK, four calls to Redis for the checks.

Each line is what a tutorial would say. It has a rate limit and a one-time token, as Keyturn has,
and no budget, no record of a turn and no word for what goes wrong.
"""

import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import redis.asyncio as redis
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from itsdangerous import BadSignature, URLSafeTimedSerializer
from openai import AsyncOpenAI
from pydantic import BaseModel

PER_MINUTE = 1_000_000
SERIALIZER = URLSafeTimedSerializer("a-long-and-random-secret-for-runs-only-7Qz9")


class Chat(BaseModel):
    """What is asked."""

    model: str
    messages: list[dict[str, str]]
    stream: bool = False
    stream_options: dict[str, bool] | None = None


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open what is needed."""
    app.state.store = redis.Redis.from_url(os.environ["REDIS_URL"])
    app.state.client = AsyncOpenAI(api_key="sk-operator")
    yield
    await app.state.store.aclose()


app = FastAPI(lifespan=lifespan)


@app.post("/v1/chat/completions")
async def chat(asked: Chat, request: Request) -> Response:
    """Check, ask, answer."""
    store: Any = request.app.state.store
    fingerprint = request.headers["keyturn-fingerprint"]
    rate = f"tutorial:rate:{request.client.host if request.client else ''}"
    if await store.incr(rate) > PER_MINUTE:
        raise HTTPException(429)
    await store.expire(rate, 60)
    await require_token(store, request.headers["authorization"], fingerprint)
    token = secrets.token_urlsafe(16)
    await store.set(f"tutorial:token:{token}", fingerprint, ex=1800)
    shown = {"Keyturn-Token": str(SERIALIZER.dumps({"t": token, "f": fingerprint}))}
    client: Any = request.app.state.client
    answer = await client.chat.completions.create(**asked.model_dump(exclude_none=True))
    if not asked.stream:
        return JSONResponse(answer.model_dump(), headers=shown)
    return StreamingResponse(events(answer), media_type="text/event-stream", headers=shown)


async def require_token(store: Any, authorization: str, fingerprint: str) -> None:
    """Honour a token once; a first turn has none."""
    shown = authorization.removeprefix("Bearer ")
    name = "none"
    if shown != "keyturn":
        try:
            name = SERIALIZER.loads(shown, max_age=1800)["t"]
        except BadSignature:
            raise HTTPException(401) from None
    if await store.getdel(f"tutorial:token:{name}") != fingerprint.encode() and name != "none":
        raise HTTPException(401)


async def events(answer: Any) -> AsyncIterator[str]:
    """The stream, as the SDK understood it."""
    async for chunk in answer:
        yield f"data: {chunk.model_dump_json()}\n\n"
    yield "data: [DONE]\n\n"
