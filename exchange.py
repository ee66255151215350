"""One HTTP exchange over ASGI: what the visitor sent, and a way to answer that cannot hang.

Reading a body and writing to a client each have a deadline and a bound, and a hang-up is noticed
while we wait for others.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Final

from starlette.types import Message, Receive, Scope, Send

from patience import DEFAULT, Patience, Wait
from problems import Headers
from security.errors import Rejection
from turn_record import TurnNote

HEAD_BYTES: Final = 16 << 10
_LINGER_SECONDS: Final = 1

OURS: Final = (
    b"keyturn-timestamp",
    b"keyturn-fingerprint",
    b"authorization",
    b"idempotency-key",
    b"x-request-id",
)


class ClientGone(Exception):
    """The client hung up; there is nobody to answer."""


class SlowReader(Exception):
    """The client did not take what we sent in time; the connection is cut."""


class Exchange:
    """A request being answered."""

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, patience: Patience = DEFAULT
    ) -> None:
        self.scope = scope
        self.patience = patience
        self.started = False
        self._delivery: Wait | None = None
        self.receive = receive
        self.send = send

    def values(self, name: bytes) -> list[str]:
        """Every value of a header, in order of arrival."""
        return [value.decode("latin-1") for key, value in self.scope["headers"] if key == name]

    def header(self, name: bytes) -> str | None:
        """The only value of a header, or None."""
        values = self.values(name)
        return values[0] if values else None

    @property
    def peer(self) -> str | None:
        """The address at the other end of the connection; None on a Unix socket."""
        client = self.scope.get("client")
        return client[0] if client else None

    @property
    def request_id(self) -> str:
        """The label of this request in logs and answers."""
        return str(self.scope["keyturn.request_id"])

    @property
    def note(self) -> TurnNote:
        """What is found out of this request, for the record that is made at its end."""
        found: TurnNote = self.scope["keyturn.note"]
        return found

    def require_bounded_head(self) -> None:
        """Refuse a head over 16 KiB."""
        size = sum(len(key) + len(value) + 4 for key, value in self.scope["headers"])
        size += len(self.scope.get("raw_path") or b"") + len(self.scope.get("query_string", b""))
        if size > HEAD_BYTES:
            raise Rejection("headers_too_large")

    def require_json(self) -> None:
        """Refuse any content type but application/json in UTF-8, and any content encoding."""
        types = self.values(b"content-type")
        kind, _, parameter = (types[0] if len(types) == 1 else "").lower().partition(";")
        charset = parameter.strip().replace('"', "")
        if kind.strip() != "application/json" or charset not in ("", "charset=utf-8"):
            raise Rejection("unsupported_media_type")
        if self.values(b"content-encoding"):
            raise Rejection("unsupported_media_type")

    def require_single_headers(self) -> None:
        """Refuse a request that says one of our headers twice."""
        for name in OURS:
            if len(self.values(name)) > 1:
                raise Rejection("header_repeated", param=name.decode())

    async def read_body(self, limit: int) -> bytes:
        """The whole body; raises `Rejection` past `limit` bytes, counted by us, or too late."""
        declared = self.header(b"content-length") or "0"
        known = declared.isdecimal() and len(declared) < 20 and int(declared) > limit
        counted = f"{int(declared)}" if known else f"more than {limit}"
        too_large = Rejection(
            "payload_too_large",
            f"The body has {counted} bytes; at most {limit} are allowed. No token was spent.",
        )
        if known:
            raise too_large
        body = bytearray()
        try:
            async with asyncio.timeout(self.patience.body):
                while True:
                    message = await self.receive()
                    if message["type"] == "http.disconnect":
                        raise ClientGone
                    body += message.get("body", b"")
                    if len(body) > limit:
                        raise too_large
                    if not message.get("more_body"):
                        return bytes(body)
        except TimeoutError:
            raise Rejection("request_timeout") from None

    async def discard_body(self) -> None:
        """Read on for a moment and keep nothing: to close on unread bytes would reset the
        connection, and the answer could be lost with it."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LINGER_SECONDS):
                while (await self.receive()).get("more_body"):
                    pass

    @asynccontextmanager
    async def present(self) -> AsyncIterator[None]:
        """A scope that ends with `ClientGone` as soon as the client hangs up.

        Only for after the body was read: from then on the server has nothing else to tell us.
        """
        visitor_task = asyncio.current_task()
        gone = False

        async def watch() -> None:
            nonlocal gone
            while (await self.receive())["type"] != "http.disconnect":
                pass
            gone = True
            if visitor_task:
                visitor_task.cancel()

        watcher = asyncio.create_task(watch())
        try:
            yield
        except asyncio.CancelledError:
            if gone and visitor_task and visitor_task.uncancel() == 0:
                raise ClientGone from None
            raise
        finally:
            watcher.cancel()
            self._forget_delivery()

    async def start(self, status: int, headers: Headers) -> None:
        """Send the head of the answer."""
        self.started = True
        await self._deliver({"type": "http.response.start", "status": status, "headers": headers})

    async def write(self, data: bytes) -> None:
        """Send part of the body; raises `SlowReader` when the client does not take it."""
        await self._deliver({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self, data: bytes = b"") -> None:
        """Send the rest of the body: the answer is complete."""
        try:
            await self._deliver({"type": "http.response.body", "body": data})
        finally:
            self._forget_delivery()

    def abort(self) -> bool:
        """Cut the connection, so that a part of an answer is not taken for the whole.

        Returns whether the server lets us.
        """
        abort = self.scope.get("extensions", {}).get("keyturn.abort")
        if abort:
            abort()
        return bool(abort)

    def hurry(self) -> None:
        """Wait for the client a second at most, from now on."""
        self.patience = replace(self.patience, write=min(self.patience.write, 1))
        self._forget_delivery()

    async def _deliver(self, message: Message) -> None:
        delivery = self._delivery = self._delivery or Wait(self.patience.write)
        try:
            with delivery:
                await self.send(message)
        except TimeoutError:
            if not delivery.expired:
                raise
            raise SlowReader from None

    def _forget_delivery(self) -> None:
        if self._delivery is not None:
            self._delivery.close()
            self._delivery = None
