"""Keyturn as one worker runs it, and a route that counts what is alive: `GET /counts`.

Run as `python -m tests.counted`, with settings from the environment. Between two counts nothing is
collected, so that the second tells how much was left for the collector. With `HOARD` in the
environment it keeps an entry of every request, as a table does that nobody clears: the control.
"""

import gc
import json
import os
import sys

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from protocol import KeyturnProtocol
from server import create_app


class Counted:
    """The app, and the count."""

    def __init__(self, app: ASGIApp, *, hoards: bool) -> None:
        self._app = app
        self._hoards = hoards
        self._kept: dict[str, tuple[str, str]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get("path") != "/counts":
            if self._hoards:
                number = len(self._kept)
                self._kept[f"turn {number}"] = f"visitor {number}", f"chain {number}"
            await self._app(scope, receive, send)
            return
        gc.enable()
        cycles = gc.collect()
        gc.disable()
        body = json.dumps({"blocks": sys.getallocatedblocks(), "cycles": cycles}).encode()
        headers = [(b"content-length", b"%d" % len(body)), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def main() -> None:
    """Serve until told to stop."""
    uvicorn.run(
        Counted(create_app(), hoards="HOARD" in os.environ),
        port=int(os.environ["PORT"]),
        http=KeyturnProtocol,
        ws="none",
        access_log=False,
        log_level="warning",
        timeout_keep_alive=75,
    )


if __name__ == "__main__":
    main()
