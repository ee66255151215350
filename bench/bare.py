"""The least that a proxy in Python does: uvicorn in front, aiohttp behind, bytes between.

No check, no limit, no record, no deadline. What Keyturn costs over this is what it does.
"""

import os
from typing import Any, Final

import aiohttp
from starlette.types import Message, Receive, Scope, Send

URL: Final = os.environ.get("OPENAI_BASE_URL", "") + "/chat/completions"
SENT: Final = {"Content-Type": "application/json", "Authorization": "Bearer sk-operator"}


class PassThrough:
    """Passes every request on, and every answer back."""

    _session: aiohttp.ClientSession

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self._live(receive, send)
        body = b""
        while (message := await receive()).get("more_body"):
            body += message["body"]
        body += message["body"]
        async with self._session.post(URL, data=body, headers=SENT) as upstream:
            await send(_head(upstream))
            while piece := await upstream.content.readany():
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        return await send({"type": "http.response.body", "body": b""})

    async def _live(self, receive: Receive, send: Send) -> None:
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as session:
            self._session = session
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})


def _head(upstream: aiohttp.ClientResponse) -> Message:
    kind = (b"content-type", upstream.headers["Content-Type"].encode())
    return {"type": "http.response.start", "status": upstream.status, "headers": [kind]}


app: Any = PassThrough()
