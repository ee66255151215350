"""One HTTP exchange over ASGI: what the visitor sent, and a way to answer that cannot hang.

Reading a body and writing to a client each have a deadline and a bound, and a hang-up is noticed
while we wait for others.
"""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any, Final

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
        self.receive = receive
        self.send = send
        self.started = False
        self._head: Message | None = None
        self._delivery: Wait | None = None
        self._server: dict[str, Any] = scope.get("extensions") or {}  # what it offers beyond ASGI
        headers = scope["headers"]
        self._fields: dict[bytes, bytes] = dict(headers)
        self._repeats = len(self._fields) < len(headers)  # then the dictionary does not tell all

    def values(self, name: bytes) -> list[str]:
        """Every value of a header, in order of arrival."""
        if self._repeats:
            return [value.decode("latin-1") for key, value in self.scope["headers"] if key == name]
        value = self._fields.get(name)
        return [] if value is None else [value.decode("latin-1")]

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
        headers = self.scope["headers"]
        size = sum(map(len, chain.from_iterable(headers))) + 4 * len(headers)
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
        if not self._repeats:
            return
        for name in OURS:
            if len(self.values(name)) > 1:
                raise Rejection("header_repeated", param=name.decode())

    async def read_body(self, limit: int) -> bytes:
        """The whole body; raises `Rejection` past `limit` bytes, counted by us, or too late."""
        declared = self.header(b"content-length") or "0"
        if declared.isdecimal() and len(declared) < 20 and int(declared) > limit:
            raise _too_large(f"{int(declared)}", limit)
        heard = self._server.get("keyturn.heard")
        if heard and heard():  # then there is nothing to wait for
            return await self._read_all(limit)
        wait = Wait(self.patience.body)
        try:
            with wait:
                return await self._read_all(limit)
        except TimeoutError:
            raise Rejection("request_timeout") from None
        finally:
            wait.close()

    async def _read_all(self, limit: int) -> bytes:
        body = bytearray()
        more = True
        while more:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            body += message.get("body", b"")
            if len(body) > limit:
                raise _too_large(f"more than {limit}", limit)
            more = message.get("more_body", False)
        return bytes(body)

    async def discard_body(self) -> None:
        """Read on for a moment and keep nothing: to close on unread bytes would reset the
        connection, and the answer could be lost with it."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LINGER_SECONDS):
                while (await self.receive()).get("more_body"):
                    pass

    def present(self) -> "Presence":
        """A scope that ends with `ClientGone` as soon as the client hangs up.

        Only for after the body was read: from then on the server has nothing else to tell us.
        """
        return Presence(self)

    def watch(self, tell: Callable[[], None]) -> Callable[[], object]:
        """Have it told when the client hangs up; returns what ends that."""
        listen = self._server.get("keyturn.gone")
        if listen and "fastapi.telemetry" not in self.scope:  # which hears it by `receive`
            listen(tell)
            return partial(listen, None)
        return asyncio.create_task(self._watch(tell)).cancel

    async def _watch(self, tell: Callable[[], None]) -> None:
        while (await self.receive())["type"] != "http.disconnect":
            pass
        tell()

    def hold(self, status: int, headers: Headers) -> None:
        """Keep the head of the answer: it leaves with the whole body, at the end."""
        self._head = {"type": "http.response.start", "status": status, "headers": headers}

    async def start(self, status: int, headers: Headers) -> None:
        """Send the head of the answer."""
        await self._begin({"type": "http.response.start", "status": status, "headers": headers})

    async def _begin(self, head: Message) -> None:
        self.started, self._head = True, None
        await self._deliver(head)

    async def write(self, data: bytes) -> None:
        """Send part of the body; raises `SlowReader` when the client does not take it."""
        await self._deliver({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self, data: bytes = b"") -> None:
        """Send the rest of the body: the answer is complete."""
        try:
            if self._head:
                await self._begin(self._head)
            await self._deliver({"type": "http.response.body", "body": data})
        finally:
            self.stop_waiting()

    def abort(self) -> bool:
        """Cut the connection, so that a part of an answer is not taken for the whole.

        Returns whether the server lets us.
        """
        abort = self._server.get("keyturn.abort")
        if abort:
            abort()
        return bool(abort)

    def hurry(self) -> None:
        """Wait for the client a second at most, from now on."""
        self.patience = replace(self.patience, write=min(self.patience.write, 1))
        self.stop_waiting()

    async def _deliver(self, message: Message) -> None:
        waits = self._server.get("keyturn.waits")
        if waits and not waits():
            await self.send(message)
            return
        delivery = self._delivery = self._delivery or Wait(self.patience.write)
        try:
            with delivery:
                await self.send(message)
        except TimeoutError:
            if not delivery.expired:
                raise
            raise SlowReader from None

    def stop_waiting(self) -> None:
        """Take the timer of sending away, until something is sent again."""
        if self._delivery is not None:
            self._delivery.close()
            self._delivery = None


class Presence:
    """The scope of a client who is there."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._task = asyncio.current_task()
        self._gone = False

    async def __aenter__(self) -> None:
        self._end = self._exchange.watch(self._leave)

    def _leave(self) -> None:
        self._gone = True
        if self._task:
            self._task.cancel()

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._end()
        self._exchange.stop_waiting()
        ended = kind is asyncio.CancelledError and self._gone
        if ended and self._task and self._task.uncancel() == 0:
            raise ClientGone from None


def _too_large(counted: str, limit: int) -> Rejection:
    return Rejection(
        "payload_too_large",
        f"The body has {counted} bytes; at most {limit} are allowed. No token was spent.",
    )
