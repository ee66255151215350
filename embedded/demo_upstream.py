"""An OpenAI-compatible upstream that needs no key: python -m embedded.demo_upstream

The law: on the wire it is OpenAI's API (Chat Completions, Responses, Models), streamed word by
word with usage; in its words it never pretends to be a model. It listens on 127.0.0.1 only,
keeps nothing and logs no text. It says "ready <port>" on standard output once it listens.
"""

import argparse
import asyncio
import json
import secrets
import time
from collections.abc import Iterable
from contextlib import suppress

from aiohttp import web
from aiohttp.typedefs import Handler

from embedded import demo_shapes
from embedded.demo_answers import BadRequest, answer, read_chat, read_responses
from embedded.demo_shapes import Json

MODELS = ("gpt-4.1-mini", "gpt-4o-mini", "gpt-3.5-turbo")
MAX_BODY_BYTES = 8 * 1024 * 1024
KEEP_ALIVE = 120.0  # longer than any client of ours keeps an idle connection
SHUTDOWN = 1.0
DELAY_MS = 22
DELAY = web.AppKey("delay", float)


def create_app(delay: float) -> web.Application:
    """The application; `delay` seconds pass between two words."""
    app = web.Application(middlewares=[errors_as_openai], client_max_size=MAX_BODY_BYTES)
    app[DELAY] = delay
    app.router.add_post("/v1/chat/completions", chat_completions)
    app.router.add_post("/v1/responses", responses)
    app.router.add_get("/v1/models", models)
    app.router.add_get("/v1/models/{name}", one_model)
    return app


async def chat_completions(request: web.Request) -> web.StreamResponse:
    """POST /v1/chat/completions"""
    asked = read_chat(await read_json(request))
    said, name, now = answer(asked), new_id("chatcmpl-"), int(time.time())
    if not asked.stream:
        return as_json(demo_shapes.chat_completion(asked, said, name, now))
    chunks = demo_shapes.chat_chunks(asked, said, name, now)
    frames = (b"data: " + encode(chunk) for chunk in chunks)
    return await stream(request, [*frames, b"data: [DONE]"])


async def responses(request: web.Request) -> web.StreamResponse:
    """POST /v1/responses"""
    asked = read_responses(await read_json(request))
    said, name, now = answer(asked), new_id("resp_"), int(time.time())
    if not asked.stream:
        return as_json(demo_shapes.response(asked, said, name, now))
    events = demo_shapes.response_events(asked, said, name, now)
    return await stream(
        request,
        (b"event: %s\ndata: %s" % (event["type"].encode(), encode(event)) for event in events),
    )


async def models(request: web.Request) -> web.Response:
    """GET /v1/models"""
    return as_json({"object": "list", "data": [demo_shapes.model(name) for name in MODELS]})


async def one_model(request: web.Request) -> web.Response:
    """GET /v1/models/{name}"""
    name = request.match_info["name"]
    if name in MODELS:
        return as_json(demo_shapes.model(name))
    problem = BadRequest(f"The model '{name}' does not exist.", "model", "model_not_found")
    return as_json(demo_shapes.error(problem), status=404)


async def stream(request: web.Request, frames: Iterable[bytes]) -> web.StreamResponse:
    """Send the frames as server-sent events, one at a time; a client that left ends it."""
    headers = {"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache"}
    answered = web.StreamResponse(headers=headers | request_id())
    await answered.prepare(request)
    with suppress(ConnectionResetError):
        for frame in frames:
            await answered.write(frame + b"\n\n")
            await asyncio.sleep(request.app[DELAY])
        await answered.write_eof()
    return answered


@web.middleware
async def errors_as_openai(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer every refusal in OpenAI's shape."""
    try:
        return await handler(request)
    except BadRequest as problem:
        return as_json(demo_shapes.error(problem), status=400)
    except web.HTTPException as refusal:
        said = demo_shapes.error(BadRequest(f"{refusal.reason} ({request.method} {request.path})"))
        allow = {"Allow": refusal.headers["Allow"]} if "Allow" in refusal.headers else {}
        return as_json(said, status=refusal.status, headers=allow)


async def read_json(request: web.Request) -> object:
    """The body's JSON; raises BadRequest."""
    try:
        return json.loads(await request.read())
    except (ValueError, RecursionError) as error:
        raise BadRequest("We could not parse the JSON body of your request.") from error


def as_json(body: Json, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """A whole JSON answer."""
    return web.Response(
        body=encode(body),
        status=status,
        content_type="application/json",
        headers=request_id() | (headers or {}),
    )


def encode(body: Json) -> bytes:
    """Compact JSON in UTF-8, as OpenAI sends it."""
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def new_id(prefix: str) -> str:
    """A new id in OpenAI's manner."""
    return prefix + secrets.token_hex(16)


def request_id() -> dict[str, str]:
    """The header by which support would find a request."""
    return {"x-request-id": new_id("req_")}


async def serve(port: int, delay: float) -> None:
    """Listen on 127.0.0.1 until cancelled; port 0 is any free one."""
    runner = web.AppRunner(
        create_app(delay),
        access_log=None,
        keepalive_timeout=KEEP_ALIVE,
        handler_cancellation=True,
        shutdown_timeout=SHUTDOWN,
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        print(f"ready {runner.addresses[0][1]}", flush=True)
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="An OpenAI-compatible demo upstream.")
    parser.add_argument("--port", type=int, default=0, help="default: any free port")
    parser.add_argument("--delay-ms", type=float, default=DELAY_MS, help="between two words")
    given = parser.parse_args()
    with suppress(KeyboardInterrupt):
        asyncio.run(serve(given.port, given.delay_ms / 1000))


if __name__ == "__main__":
    main()
