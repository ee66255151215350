"""The proxy that everybody writes first: what the tests of this folder must be able to fail."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import uvicorn
from fastapi import FastAPI, Request
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.responses import Response, StreamingResponse
from starlette.types import ASGIApp

from tests.stage import eventually

STORE = 0.01  # seconds that a store takes to answer


@dataclass
class Naive:
    """A naive server: where it listens, and what became of its turns."""

    url: str = ""
    begun: int = 0
    settled: int = 0
    left_open: list[Any] = field(default_factory=list)
    server: uvicorn.Server | None = None

    async def settle(self) -> None:
        """Tell the store that a turn is over."""
        await asyncio.sleep(STORE)
        self.settled += 1


def naive_app(upstream: str, naive: Naive, *, middleware: bool, bare_break: bool) -> FastAPI:
    """A StreamingResponse around a generator whose `finally` settles."""
    app = FastAPI()

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> StreamingResponse:
        body = await request.body()
        return StreamingResponse(relay(body, request), media_type="text/event-stream")

    async def relay(body: bytes, request: Request) -> AsyncIterator[bytes]:
        naive.begun += 1
        session: aiohttp.ClientSession = app.state.session
        headers = {"Content-Type": "application/json"}
        try:
            answer = await session.post(f"{upstream}/chat/completions", data=body, headers=headers)
            naive.left_open.append(answer)  # as a log, a metric or a traceback would
            async for piece in answer.content.iter_any():
                yield piece
                if bare_break and await request.is_disconnected():
                    break
        finally:
            await naive.settle()

    if middleware:

        async def pass_on(request: Request, call_next: RequestResponseEndpoint) -> Response:
            return await call_next(request)

        app.add_middleware(BaseHTTPMiddleware, dispatch=pass_on)
    return app


@asynccontextmanager
async def plain_uvicorn(app: ASGIApp, *, graceful: int = 0) -> AsyncIterator[uvicorn.Server]:
    """An app under uvicorn as it comes, in this loop."""
    config = uvicorn.Config(app, port=0, log_config=None, timeout_graceful_shutdown=graceful)
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())

    async def started() -> bool:
        return server.started

    await eventually(started)
    try:
        yield server
    finally:
        server.should_exit = True
        await task


def url_of(server: uvicorn.Server) -> str:
    """Where a server listens."""
    return f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"


@asynccontextmanager
async def naively(
    upstream: str, *, middleware: bool = False, bare_break: bool = False, graceful: int = 5
) -> AsyncIterator[Naive]:
    """The naive proxy, served by plain uvicorn."""
    naive = Naive()
    app = naive_app(upstream, naive, middleware=middleware, bare_break=bare_break)
    async with aiohttp.ClientSession() as session:
        app.state.session = session
        async with plain_uvicorn(app, graceful=graceful) as server:
            naive.server, naive.url = server, url_of(server)
            try:
                yield naive
            finally:
                for answer in naive.left_open:
                    answer.close()
