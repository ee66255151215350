"""The second door upstream: visitors who bring their own key, through the openai SDK.

A visitor's key goes to one place, in one request, and nothing of the operator's goes with it: the
SDK reads keys, organisation, project and headers from the environment by itself, so what leaves is
rebuilt from a short list of headers.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, cast

from completions.own_key_request import OwnKeyRequest
from completions.upstream import failure_of, refusal
from patience import Patience
from security.breaker import Breaker
from security.errors import UpstreamFailure
from security.gate import Admission

if TYPE_CHECKING:
    import httpx2
    from openai import AsyncOpenAI

_SENT_HEADERS: Final = frozenset(
    {"host", "authorization", "content-type", "content-length", "accept", "connection"}
)


class OwnKeyUpstream:
    """Asks one upstream by whatever key the visitor brought."""

    def __init__(
        self,
        url: str,
        *,
        max_output_tokens: int,
        connections: int,
        patience: Patience,
        breaker: Breaker,
    ) -> None:
        self._url = url
        self._max_output_tokens = max_output_tokens
        self._connections = connections
        self._patience = patience
        self._breaker = breaker
        self._client: AsyncOpenAI | None = None

    @asynccontextmanager
    async def stream(
        self, admission: Admission[OwnKeyRequest]
    ) -> AsyncIterator[AsyncIterator[str]]:
        """The texts of the answer as they come; left, the connection is closed.

        Raises `UpstreamFailure`, also from the iterator when upstream fails in the middle.
        """
        from openai import APIConnectionError, APIStatusError, APITimeoutError, OpenAIError

        try:
            async with await self._ask(admission) as chunks:
                self._breaker.succeeded()
                yield _texts(chunks)
        except APIStatusError as failure:
            self._breaker.succeeded()
            raise refusal(
                failure.status_code,
                {"error": failure.body},
                own_key=True,
                retry_after=failure.response.headers.get("retry-after"),
            ) from None
        except APITimeoutError:
            self._breaker.failed()
            raise UpstreamFailure("upstream_timeout") from None
        except APIConnectionError:
            self._breaker.failed()
            raise UpstreamFailure("upstream_unavailable") from None
        except (OpenAIError, OSError, ValueError, _transport_error()) as failure:
            raise failure_of(failure) from None

    async def close(self) -> None:
        """Close the pool."""
        if self._client:
            await self._client.close()

    async def _ask(self, admission: Admission[OwnKeyRequest]) -> Any:
        if admission.own_key is None:
            raise UpstreamFailure("upstream_unavailable")
        client = self._shared().with_options(api_key=admission.own_key.get_secret_value())
        return await client.chat.completions.create(
            model=admission.request.model,
            messages=cast(Any, admission.request.messages),
            max_completion_tokens=self._max_output_tokens,
            stream=True,
        )

    def _shared(self) -> "AsyncOpenAI":
        """One client and pool for all; imported at first use, for it costs most of a second."""
        if self._client is None:
            import httpx2
            from openai import AsyncOpenAI

            timeout = httpx2.Timeout(self._patience.silence, connect=self._patience.connect)
            self._client = AsyncOpenAI(
                api_key="unset",
                base_url=self._url,
                max_retries=0,
                timeout=timeout,
                http_client=httpx2.AsyncClient(
                    timeout=timeout,
                    limits=httpx2.Limits(max_connections=self._connections),
                    follow_redirects=False,
                    trust_env=False,
                    event_hooks={"request": [_strip]},
                ),
            )
        return self._client


async def _strip(request: "httpx2.Request") -> None:
    """Let only listed headers leave, and no cookie, organisation, project or platform."""
    for name in [name for name in request.headers if name.lower() not in _SENT_HEADERS]:
        del request.headers[name]
    request.headers["accept-encoding"] = "identity"
    request.headers["user-agent"] = "keyturn"


async def _texts(chunks: Any) -> AsyncIterator[str]:
    async for chunk in chunks:
        for choice in chunk.choices:
            text = choice.delta.content or choice.delta.refusal
            if text:
                yield text


def _transport_error() -> type[Exception]:
    import httpx2

    return httpx2.HTTPError
