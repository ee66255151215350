"""The second door upstream: visitors who bring their own key, through the openai SDK.

A visitor's key goes to one place, in one request, and nothing of the operator's goes with it. The
SDK takes keys, organisation, project and headers from the environment by itself, and a header of
the environment wins over the key it was given: so the head of every request is written anew.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Any, Final

from completions.own_key_request import OwnKeyRequest
from completions.refusals import refusal
from completions.request import Policy
from completions.upstream import MAX_ERROR_BYTES, failure_of, note
from patience import Patience
from security.breaker import Breaker
from security.errors import UpstreamFailure
from security.gate import Admission

if TYPE_CHECKING:
    import httpx2
    from openai import AsyncOpenAI

_NO_KEY: Final = "none"
_KEEP_ALIVE_SECONDS: Final = 5


class OwnKeyUpstream:
    """Asks one upstream by whatever key the visitor brought."""

    def __init__(
        self, url: str, *, policy: Policy, connections: int, patience: Patience, breaker: Breaker
    ) -> None:
        self._url = url
        self._policy = policy
        self._connections = connections
        self._patience = patience
        self._breaker = breaker
        self._client: AsyncOpenAI | None = None
        self._opening = asyncio.Lock()

    @asynccontextmanager
    async def stream(
        self, admission: Admission[OwnKeyRequest]
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """The texts of the answer as they come; left, the connection is closed.

        Raises `UpstreamFailure`, also from the iterator: when upstream fails in the middle, sends
        what is no chunk, or stops without saying why it ended.
        """
        try:
            async with await self._ask(admission) as chunks, aclosing(_texts(chunks)) as texts:
                self._breaker.succeeded()
                yield texts
        except UpstreamFailure as failure:
            note(self._breaker, failure.code)
            raise

    async def close(self) -> None:
        """Close the pool."""
        if self._client:
            await self._client.close()

    async def _ask(self, admission: Admission[OwnKeyRequest]) -> Any:
        if admission.own_key is None:
            raise UpstreamFailure("upstream_rejected")
        client = await self._shared()
        create: Any = client.chat.completions.create
        model = admission.request.model
        try:
            return await create(
                model=model,
                messages=admission.request.messages,
                stream=True,
                extra_headers={"Authorization": f"Bearer {admission.own_key.get_secret_value()}"},
                **{self._policy.prices[model].output_limit_field: self._policy.max_output_tokens},
                **({"store": False} if self._policy.unstored else {}),
            )
        except _failures() as failure:
            raise _meaning(failure) from None

    async def _shared(self) -> "AsyncOpenAI":
        """One client and pool for all; imported at first use and beside the loop: it is slow."""
        async with self._opening:
            if self._client is None:
                self._client = await asyncio.to_thread(self._open)
        return self._client

    def _open(self) -> "AsyncOpenAI":
        import httpx2
        from openai import AsyncOpenAI

        patience = self._patience
        timeout = httpx2.Timeout(patience.silence, connect=patience.connect, pool=patience.connect)
        return AsyncOpenAI(
            api_key=_NO_KEY,
            base_url=self._url,
            max_retries=0,
            timeout=timeout,
            http_client=httpx2.AsyncClient(
                timeout=timeout,
                limits=httpx2.Limits(
                    max_connections=self._connections,
                    max_keepalive_connections=self._connections,
                    keepalive_expiry=_KEEP_ALIVE_SECONDS,
                ),
                cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
                follow_redirects=False,
                trust_env=False,
                event_hooks={"request": [_write_head], "response": [_require_stream]},
            ),
        )


async def _write_head(request: "httpx2.Request") -> None:
    """Let the visitor's key leave, and else nothing that the SDK found on its way."""
    from httpx2 import Headers

    headers = {
        "Host": request.url.netloc.decode("ascii"),
        "Authorization": request.headers["Authorization"],
        "Content-Type": "application/json",
        "Content-Length": str(len(request.content)),
        "Accept": "text/event-stream",
        "Accept-Encoding": "identity",
        "User-Agent": "keyturn",
    }
    request.headers = Headers(headers)


async def _require_stream(response: "httpx2.Response") -> None:
    """Raise `UpstreamFailure` for anything but a stream of events, before the SDK reads it."""
    if response.status_code != 200:
        raise refusal(
            response.status_code,
            await _error_body(response),
            own_key=True,
            retry_after=response.headers.get("Retry-After"),
        )
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind != "text/event-stream" or "Content-Encoding" in response.headers:
        raise UpstreamFailure("upstream_unavailable")


async def _error_body(response: "httpx2.Response") -> Any:
    from httpx2 import HTTPError

    body = b""
    try:
        async with aclosing(response.aiter_raw()) as chunks:
            async for chunk in chunks:
                body += chunk
                if len(body) > MAX_ERROR_BYTES:
                    break
        return json.loads(body)
    except (HTTPError, ValueError, RecursionError):
        return None  # the status says enough


async def _texts(chunks: Any) -> AsyncGenerator[bytes, None]:
    """The text of each chunk in UTF-8; the SDK checks no chunk, so that anything may be in one."""
    finished = False
    try:
        async for chunk in chunks:
            for choice in chunk.choices:
                finished = finished or bool(choice.finish_reason)
                text = choice.delta.content or choice.delta.refusal
                if text:
                    yield text.encode("utf-8", "replace")
    except (AttributeError, TypeError, RecursionError):
        raise UpstreamFailure("upstream_unavailable") from None
    except _failures() as failure:
        raise _meaning(failure) from None
    if not finished:
        raise UpstreamFailure("upstream_unavailable")


def _failures() -> tuple[type[Exception], ...]:
    from httpx2 import HTTPError
    from openai import OpenAIError

    return OpenAIError, HTTPError, OSError, ValueError


def _meaning(failure: Exception) -> UpstreamFailure:
    """What a failure of the SDK means to the visitor."""
    from openai import APITimeoutError

    if isinstance(failure, APITimeoutError):
        return UpstreamFailure("upstream_timeout")
    return failure_of(failure)
