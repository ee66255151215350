"""The proxy that everybody writes first, with the faults that everybody makes: the control.

A case that Keyturn withstands proves something only if it can succeed. Each heading has cases that
are also sent to this server, and there they must do their harm. Run by uvicorn as it comes, with
h11; `UPSTREAM` and `ROGUE` name the upstreams of the two models, `OPENAI_API_KEY` the key.

Its faults, all seen in the wild: a token is looked up first and noted as used after, by its text;
it is bound to no browser; whoever repeats an idempotency key gets the successor; the visitor is
the leftmost word of X-Forwarded-For; an origin need only hold the right name; the body goes
upstream as it came, after `json.loads` at its most generous, gzip too; the page may choose key and
URL; upstream's head, redirects and errors are passed on; all of it is logged; documentation, a
debug page and every other path of upstream's are open.
"""

import asyncio
import gzip
import json
import logging
import os
import secrets
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from fastapi import FastAPI, Request
from itsdangerous import BadData, URLSafeSerializer
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse

STORE = 0.01  # seconds that a store takes to answer
STARTS = 10  # new chats of one address
KEY = os.environ.get("OPENAI_API_KEY", "")
URLS = {"gpt-4o-mini": os.environ.get("ROGUE", "")}
HOP_BY_HOP = {"transfer-encoding", "content-length", "connection", "date"}

log = logging.getLogger("naive")
serializer = URLSafeSerializer("secret")
used, starts, recovered = set[str](), Counter[str](), dict[str, str]()


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Log everything, open a client."""
    logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
    sys.set_int_max_str_digits(0)
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        app.state.session = session
        yield


app = FastAPI(title="A naive proxy", debug=True, lifespan=lifespan)


@app.get("/debug")
async def debug() -> dict[str, str]:
    """How it was configured, for whoever wants to know."""
    return dict(os.environ)


@app.api_route("/{path:path}", methods=["GET", "POST", "PUT", "DELETE", "TRACE"])
async def proxy(request: Request, path: str) -> Response:
    """The gate and the way upstream, in one."""
    if request.method == "TRACE":
        return PlainTextResponse("\n".join(f"{n}: {v}" for n, v in request.headers.items()))
    raw = await request.body()
    if "gzip" in request.headers.get("content-encoding", ""):
        raw = gzip.decompress(raw)
    log.info("%s %s %s %r", request.client, request.url, dict(request.headers), raw[:100_000])
    if request.method == "GET":
        return JSONResponse({"status": "ok", "path": path})
    try:
        body = json.loads(raw.decode(json.detect_encoding(raw), "surrogatepass"))
    except ValueError as broken:
        return JSONResponse({"detail": str(broken), "input": raw.decode("latin-1")}, 422)
    if path == "api/chat":
        body |= {"messages": [{"role": "user", "content": body.pop("user_message")}]}
        path = "v1/chat/completions"
    return await gate(request) or await relay(request, path, body)


async def gate(request: Request) -> Response | None:
    """Why a request may not pass, or None."""
    headers = request.headers
    if "page.example" not in headers.get("origin", "page.example"):
        return JSONResponse({"detail": f"bad origin {headers['origin']}"}, 403)
    if known := recovered.get(headers.get("idempotency-key", "")):
        return JSONResponse({"detail": "duplicate"}, 409, {"Keyturn-Token": known})
    token = headers.get("authorization", "").removeprefix("Bearer ")
    if token and not token.startswith("sk-") and token != "keyturn":
        return await redeem(token)
    forwarded = headers.get("x-forwarded-for")
    address = forwarded.split(",")[0] if forwarded else request.client.host  # type: ignore[union-attr]
    starts[address] += 1
    if starts[address] > STARTS:
        return JSONResponse({"detail": "too many chats"}, 429)
    return None


async def redeem(token: str) -> Response | None:
    """Honour a token, once for each of its spellings, if nobody else does meanwhile."""
    try:
        serializer.loads(token)
    except BadData as wrong:
        return JSONResponse({"detail": f"{wrong} in {token}"}, 401)
    if token in used:
        return JSONResponse({"detail": "used"}, 401)
    await asyncio.sleep(STORE)
    used.add(token)
    return None


async def relay(request: Request, path: str, body: Any) -> Response:
    """Ask upstream by whatever key and URL, and pass everything on."""
    said = body if isinstance(body, dict) else {}
    bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
    own = said.pop("api_key", "") or (bearer if bearer.startswith("sk-") else "")
    usual = URLS.get("gpt-4o-mini" if own else said.get("model", "")) or os.environ["UPSTREAM"]
    url, key = said.pop("base_url", "") or usual, own or KEY
    answer = await app.state.session.post(
        f"{url.removesuffix('/v1')}/{path}",
        data=json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
    )
    successor = str(serializer.dumps([secrets.token_hex(8)]))
    if given := request.headers.get("idempotency-key"):
        recovered[given] = successor
    response = StreamingResponse(pieces(answer), answer.status)
    response.raw_headers = [
        *((n, v) for n, v in answer.raw_headers if n.decode().lower() not in HOP_BY_HOP),
        (b"keyturn-token", successor.encode()),
    ]
    return response


async def pieces(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Upstream's bytes, as they come."""
    async for piece in answer.content.iter_any():
        yield piece
    answer.release()
