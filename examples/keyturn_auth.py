"""Chains Keyturn's one-time tokens under the openai SDK, sync and async.

    url = "http://127.0.0.1:8000/v1"
    http_client = httpx2.Client(auth=KeyturnAuth(url))
    client = OpenAI(base_url=url, api_key="keyturn", http_client=http_client)

The law: one request at a time holds the token, until its headers are there; each remedy is tried at
most once per send; what is then still refused is the SDK's to retry or to raise. Make one for each
client, and let it follow no redirects (httpx2 does so only when told): they would take our headers
along.
"""

import asyncio
import json
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Generator
from concurrent.futures import Future
from contextvars import ContextVar
from threading import Lock
from typing import Final

import httpx2

DEAD_CHAIN: Final = {
    *("token_malformed", "token_forged", "token_expired", "token_reused"),
    *("chain_unknown", "chain_revoked", "fingerprint_mismatch"),
}
FOR_OPENAI: Final = ("Authorization", "OpenAI-Organization", "OpenAI-Project")

# What this thread or task sends under: the SDK retries in the very same one.
_key: ContextVar[str | None] = ContextVar("keyturn_idempotency_key", default=None)


class KeyturnAuth(httpx2.Auth):
    """Shows a token with every POST under Keyturn's `/v1/`, and takes its successor."""

    def __init__(
        self,
        base_url: str,
        *,
        fingerprint: str | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._root = str(httpx2.URL(base_url)).rstrip("/").removesuffix("/v1") + "/v1/"
        self._fingerprint = fingerprint or secrets.token_urlsafe(24)
        self._clock = clock
        self._behind_ms = 0  # by which our clock is behind the server's
        self._token: str | None = None
        self._guard = Lock()
        self._last: Future[None] = Future()  # done when the last in the queue has its headers
        self._last.set_result(None)

    def sync_auth_flow(
        self, request: httpx2.Request
    ) -> Generator[httpx2.Request, httpx2.Response, None]:
        """Pass the gate with a sync client."""
        if not self._is_gated(request):
            yield request
            return
        before, mine = self._line_up()
        try:
            before.result()
            tried: set[str] = set()
            while True:
                response = yield self._prepared(request)
                self._take_successor(response)
                if not response.is_error or not self._remedied(response.read(), tried):
                    return
        finally:  # whoever gives up waiting still keeps the place in the queue
            before.add_done_callback(lambda _: mine.set_result(None))

    async def async_auth_flow(
        self, request: httpx2.Request
    ) -> AsyncGenerator[httpx2.Request, httpx2.Response]:
        """Pass the gate with an async client, the same way."""
        if not self._is_gated(request):
            yield request
            return
        before, mine = self._line_up()
        try:
            await asyncio.wrap_future(before)
            tried: set[str] = set()
            while True:
                response = yield self._prepared(request)
                self._take_successor(response)
                if not response.is_error or not self._remedied(await response.aread(), tried):
                    return
        finally:
            before.add_done_callback(lambda _: mine.set_result(None))

    def _is_gated(self, request: httpx2.Request) -> bool:
        """Whether a token is needed; nothing that is OpenAI's alone gets to Keyturn."""
        if not str(request.url).startswith(self._root):
            return False
        for name in FOR_OPENAI:
            request.headers.pop(name, None)
        if request.headers.get("x-stainless-retry-count", "0") == "0":
            _key.set(None)
        return request.method == "POST"

    def _line_up(self) -> tuple[Future[None], Future[None]]:
        """What to wait for, and what those behind wait for."""
        mine: Future[None] = Future()
        mine.set_running_or_notify_cancel()  # from here on nobody can cancel it
        with self._guard:
            before, self._last = self._last, mine
        return before, mine

    def _prepared(self, request: httpx2.Request) -> httpx2.Request:
        """The request with the headers of this moment."""
        key = _key.get() or secrets.token_urlsafe(24)
        _key.set(key)
        request.headers["Idempotency-Key"] = key
        request.headers["Keyturn-Fingerprint"] = self._fingerprint
        request.headers["Keyturn-Timestamp"] = str(self._now_ms() + self._behind_ms)
        request.headers.pop("Authorization", None)
        if self._token:
            request.headers["Authorization"] = f"Bearer {self._token}"
        return request

    def _take_successor(self, response: httpx2.Response) -> None:
        """Keep the next token; it says that the send was taken, and its key is used up."""
        if successor := response.headers.get("Keyturn-Token"):
            self._token = successor
            _key.set(None)

    def _remedied(self, body: bytes, tried: set[str]) -> bool:
        """Whether to send once more: something was put right that was not tried before."""
        try:
            problem = json.loads(body)
            remedy = self._remedy(problem["code"], problem["server_time_ms"])
            if remedy == "new chain" and problem.get("chain") != "advanced":
                self._token = None  # else its first token came with the refusal
        except (ValueError, LookupError, TypeError):
            return False  # no refusal of Keyturn's
        if remedy is None or remedy in tried:
            return False
        tried.add(remedy)
        return True

    def _remedy(self, code: str, server_time_ms: int) -> str | None:
        if code == "timestamp_stale":
            self._behind_ms = server_time_ms - self._now_ms()
            return "right clock"
        if code == "duplicate_request":
            return "successor"  # it came with the refusal
        if code in DEAD_CHAIN:
            _key.set(None)
            return "new chain"
        return None

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)
