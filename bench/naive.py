"""The two proxies that are written first, as controls: what Keyturn keeps, each of them breaks.

`read-then-add` reads what was spent, compares it with the caps, calls upstream, and adds the exact
cost when upstream has ended, also for clients that left. Its one fault is the time between.
`plain-finally` holds the worst case atomically before it calls, as Keyturn does, and settles in the
`finally` of the generator that Starlette streams. Its one fault is that a client who leaves cancels
the settlement too. Both have four processes, and the keys in Redis that Keyturn has.
"""

import json
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import redis.asyncio as redis
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from bench.money_ledger import CONTROL, PREFIX, money_keys
from bench.plan import MAX_OUTPUT
from completions.prices import Price, read_prices
from tests.money.books import billed, worst

# KEYS control, hold:<rid>, spend:<day>, spend:<day>:<a>, spend:<day>:<w> of IPv6; amounts in µUSD.
ADMIT = """
local caps = {redis.call('HGET', KEYS[1], 'cap') or ARGV[2], ARGV[3], 4 * ARGV[3]}
for at = 3, #KEYS do
  local money = redis.call('HMGET', KEYS[at], 'spent', 'held')
  if (money[1] or 0) + (money[2] or 0) + ARGV[1] > tonumber(caps[at - 2]) then return at - 2 end
end
if ARGV[4] == 'hold' then
  redis.call('SET', KEYS[2], ARGV[1])
  for at = 3, #KEYS do redis.call('HINCRBY', KEYS[at], 'held', ARGV[1]) end
end
return 0
"""
SETTLE = """
redis.call('DEL', KEYS[2])
for at = 3, #KEYS do
  redis.call('HINCRBY', KEYS[at], 'held', ARGV[1])
  redis.call('HINCRBY', KEYS[at], 'spent', ARGV[2])
end
"""


class Call:
    """One request on its way: what is sent, whose money it is, and the most it can cost."""

    def __init__(self, asked: dict[str, Any], address: str, day: int, price: Price) -> None:
        limit = min(asked.pop("max_tokens", MAX_OUTPUT), MAX_OUTPUT)
        usage = {"stream_options": {"include_usage": True}} if asked.get("stream") else {}
        self.body = {**asked, price.output_limit_field: limit, **usage}
        self.hold = f"{PREFIX}hold:{secrets.token_urlsafe(16)}"
        self.keys = [CONTROL, self.hold, *money_keys(day, address)]
        self.price = price
        self.worst = worst(self.body, price, limit)

    def cost(self, answer: bytes) -> int:
        """By upstream's usage; where there is none, the worst case."""
        stated = [json.loads(line[6:]) for line in answer.splitlines() if line[:7] == b"data: {"]
        if not stated and answer.startswith(b"{"):
            stated = [json.loads(answer)]
        usage = next((each["usage"] for each in stated if each.get("usage")), None)
        if not usage:
            return self.worst
        cached = usage["prompt_tokens_details"]["cached_tokens"]
        tokens = {"prompt_tokens": usage["prompt_tokens"], "cached_tokens": cached}
        entry = {"body": self.body, "output_tokens": usage["completion_tokens"], **tokens}
        return billed(entry, {self.body["model"]: self.price})


class Proxy:
    """What both have in common."""

    def __init__(self, store: "redis.Redis", session: aiohttp.ClientSession) -> None:
        self.store: Any = store
        self.session = session
        self.holds = os.environ["KIND"] == "plain-finally"
        names = ("DAILY_BUDGET_USD", "VISITOR_DAILY_BUDGET_USD")
        self.caps = [round(float(os.environ[name]) * 1e6) for name in names]
        self.prices = read_prices(Path(os.environ["PRICES_FILE"]).read_bytes())
        self.url = os.environ["OPENAI_BASE_URL"] + "/chat/completions"

    async def call(self, request: Request) -> Call:
        """What a request asks for."""
        asked = await request.json()
        day = (await self.store.time())[0] // 86400
        return Call(asked, request.headers["x-forwarded-for"], day, self.prices[asked["model"]])

    async def refusal(self, call: Call) -> JSONResponse | None:
        """Why a call may not be made; otherwise its worst case is held, by who holds at all."""
        said = (call.worst, *self.caps, "hold" if self.holds else "look")
        full = await self.store.eval(ADMIT, len(call.keys), *call.keys, *said)
        if not full:
            return None
        code = "budget_exhausted" if full == 1 else "budget_visitor"
        return JSONResponse({"code": code}, 503 if full == 1 else 429)

    async def settle(self, call: Call, cost: int) -> None:
        """Give back what was held, and add what it did cost."""
        held = int(await self.store.get(call.hold) or 0)
        await self.store.eval(SETTLE, len(call.keys), *call.keys, str(-held), cost)


class ReadThenAdd:
    """Looks, calls, then adds."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        proxy: Proxy = scope["app"].state.proxy
        call = await proxy.call(Request(scope, receive))
        if refused := await proxy.refusal(call):
            return await refused(scope, receive, send)
        answer = b""
        async with proxy.session.post(proxy.url, json=call.body) as upstream:
            await send(_head(upstream))
            try:
                async for piece in upstream.content.iter_any():
                    answer += piece
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
            finally:  # nobody cancels this: it does not even notice a client that has left
                if upstream.status == 200:
                    await proxy.settle(call, call.cost(answer))
        return await send({"type": "http.response.body"})


def _head(upstream: aiohttp.ClientResponse) -> dict[str, Any]:
    kind = (b"content-type", upstream.content_type.encode())
    return {"type": "http.response.start", "status": upstream.status, "headers": [kind]}


async def plain_finally(request: Request) -> Response:
    """Holds, calls, and settles when the generator ends."""
    proxy: Proxy = request.app.state.proxy
    call = await proxy.call(request)
    if refused := await proxy.refusal(call):
        return refused
    upstream = await proxy.session.post(proxy.url, json=call.body)

    async def relay() -> AsyncIterator[bytes]:
        answer = b""
        try:
            async for piece in upstream.content.iter_any():
                answer += piece
                yield piece
        finally:
            upstream.close()
            cost = call.cost(answer) if upstream.status == 200 else 0
            await proxy.settle(call, cost)

    return StreamingResponse(relay(), upstream.status, media_type=upstream.content_type)


async def health(_: Request) -> Response:
    """Whether it serves."""
    return Response()


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """Open the store and the client, as a tutorial would."""
    store = redis.Redis.from_url(os.environ["REDIS_URL"])
    connector = aiohttp.TCPConnector(limit=0)
    async with store, aiohttp.ClientSession(connector=connector) as session:
        app.state.proxy = Proxy(store, session)
        yield


def make_app() -> Starlette:
    """The control that the environment names."""
    chat = ReadThenAdd() if os.environ.get("KIND") == "read-then-add" else plain_finally
    routes = [
        Route("/v1/chat/completions", chat, methods=["POST"]),
        Route("/healthz", health),
    ]
    return Starlette(routes=routes, lifespan=lifespan)


app = make_app()
