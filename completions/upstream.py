"""The door to OpenAI, and to any server that speaks its API.

Only an `Admission` opens it. Key and destination are one unit: the operator's key goes to the
operator's upstream, a visitor's own key to the one meant for own keys, and never crosswise.
Nothing is retried, no redirect is followed, the environment's proxies are not used.
"""

import json
import logging
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.connector import Connection
from pydantic import SecretStr

from completions.charge import Meter
from completions.request import ChatRequest
from completions.scanner import BUSY, VISITORS_FAULT
from patience import Patience
from security.breaker import Breaker
from security.errors import Code, UpstreamFailure
from security.gate import Admission

log = logging.getLogger("keyturn")

MAX_ANSWER_BYTES: Final = 16 << 20
MAX_ERROR_BYTES: Final = 64 << 10
_LONGEST_WAIT: Final = 3600
# Bytes of an answer that may lie here while its visitor takes nothing in, of many visitors each.
# More would not make an answer faster that is written word by word.
_RECEIVED: Final = 24 << 10
_UNREAD: Final = 4 << 10
_OPENAI: Final = re.compile(
    r"https?://([a-z0-9-]+\.)*api\.openai\.com\.?(:[0-9]*)?(/.*)?", re.ASCII | re.IGNORECASE
)

_OPERATORS_HINTS: Final = {
    401: ": look at OPENAI_API_KEY",
    403: ": look at OPENAI_API_KEY and what it may do",
    404: ": look at OPENAI_BASE_URL and ALLOWED_MODELS",
}
_CHANGE_IT: Final = "The conversation is too long or was refused. Change it and send it again."


@dataclass(frozen=True, slots=True)
class Destination:
    """Where requests go, by which key, and whether asking is worth it now."""

    url: str
    key: SecretStr | None
    breaker: Breaker

    @property
    def is_openai(self) -> bool:
        """Whether this is OpenAI itself, by the host: api.openai.com, or one of its regions."""
        return _OPENAI.fullmatch(self.url) is not None


def new_session(*, connections: int, patience: Patience) -> aiohttp.ClientSession:
    """The pooled HTTP client of this worker, with every limit said."""
    return aiohttp.ClientSession(
        connector=_Connector(limit=connections, socket_factory=_small_socket),
        read_bufsize=_UNREAD,
        cookie_jar=aiohttp.DummyCookieJar(),
        # Not `sock_connect`, which leaves out the time that it takes to look the name up.
        timeout=aiohttp.ClientTimeout(connect=patience.connect, sock_read=patience.silence),
        auto_decompress=False,
        trust_env=False,
        headers={"Accept-Encoding": "identity", "User-Agent": "keyturn"},
    )


def _small_socket(address: aiohttp.AddrInfoType) -> socket.socket:
    """A socket whose buffer holds an answer of a few seconds: what we do not read, waits there."""
    family, kind, protocol, *_ = address
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVED)
    return made


class _Connector(aiohttp.TCPConnector):
    """A pool that uses no connection again on which upstream spoke without being asked.

    aiohttp would take what was said there for the answer to the next visitor.
    """

    async def _get(self, key: ConnectionKey, traces: list[Any]) -> Connection | None:
        while connection := await super()._get(key, traces):
            if connection.protocol is not None and not connection.protocol.should_close:
                return connection
            connection.close()
        return None


class Upstream:
    """Sends admitted requests upstream, by the operator's key or the visitor's own."""

    def __init__(
        self, session: aiohttp.ClientSession, *, operator: Destination, own_key: Destination
    ) -> None:
        self._session = session
        self._operator = operator
        self._own_key = own_key

    @asynccontextmanager
    async def complete(
        self, admission: Admission[ChatRequest], meter: Meter
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer to an admitted request, its headers read; left, the connection is closed.

        `meter` is told when the request leaves, and whether upstream served it. Raises
        `UpstreamFailure` for anything but a 200 of the kind that was asked for.
        """
        destination, key = self._by(admission)
        try:
            async with self._session.post(
                f"{destination.url}/{admission.request.api}",
                data=_Metered(_body(admission), meter),
                headers={
                    "Authorization": f"Bearer {key.get_secret_value()}",
                    "Content-Type": "application/json",
                },
                allow_redirects=False,
            ) as response:
                try:
                    meter.status, meter.refused = response.status, response.status >= 300
                    await _require_answer(response, admission)
                    destination.breaker.succeeded()
                    yield response
                finally:
                    if not response.content.at_eof():
                        response.close()
        except (aiohttp.ClientError, TimeoutError, OSError) as failure:
            destination.breaker.failed()
            raise failure_of(failure) from None
        except UpstreamFailure as failure:
            note(destination.breaker, failure.code)
            raise

    def _by(self, admission: Admission[ChatRequest]) -> tuple[Destination, SecretStr]:
        if admission.own_key is not None:
            return self._own_key, admission.own_key
        if self._operator.key is None:
            raise UpstreamFailure("upstream_unavailable")
        return self._operator, self._operator.key


class _Metered(aiohttp.BytesPayload):
    """A body that notes when it begins to leave: from then on upstream may bill it."""

    def __init__(self, body: bytes, meter: Meter) -> None:
        super().__init__(body)
        self._meter = meter

    async def write_with_length(
        self, writer: AbstractStreamWriter, content_length: int | None
    ) -> None:
        self._meter.sent = True
        await super().write_with_length(writer, content_length)


def _body(admission: Admission[ChatRequest]) -> bytes:
    request, hold = admission.request, admission.hold
    return request.upstream(hold.max_output if hold else request.worst.max_output)


def failure_of(failure: BaseException) -> UpstreamFailure:
    """What a failing connection means to the visitor."""
    if isinstance(failure, TimeoutError):
        return UpstreamFailure("upstream_timeout")
    return UpstreamFailure("upstream_unavailable")


async def read_more(source: aiohttp.StreamReader) -> bytes:
    """What upstream has sent since, b"" at the end; raises `UpstreamFailure` when it breaks off."""
    try:
        return await source.readany()
    except (aiohttp.ClientError, TimeoutError, OSError) as failure:
        raise failure_of(failure) from None
    except RuntimeError:  # aiohttp's for a connection that it closed itself, over broken HTTP
        raise UpstreamFailure("upstream_unavailable") from None


def refusal(status: int, said: Any, *, own_key: bool, retry_after: str | None) -> UpstreamFailure:
    """What upstream's error status means to the visitor; nothing of its text goes along."""
    error = said.get("error") if isinstance(said, dict) else None
    code = error.get("code") if isinstance(error, dict) else None
    if status == 401 and own_key:
        return UpstreamFailure("byok_key_rejected")
    if status == 429:
        return UpstreamFailure("upstream_rate_limited", retry_after=_seconds(retry_after))
    if status >= 500 or status < 400 or status == 408:
        return UpstreamFailure("upstream_unavailable")
    if isinstance(code, str) and code in VISITORS_FAULT:
        return UpstreamFailure("upstream_rejected", _CHANGE_IT, status=400)
    return UpstreamFailure("upstream_rejected")


def reported(code: str | None) -> UpstreamFailure:
    """What an error means to the visitor that upstream reports behind a 200, by what it calls it.

    OpenAI refuses Responses so, when they stream: a conversation that is too long, for one.
    """
    if code in VISITORS_FAULT:
        return UpstreamFailure("upstream_rejected", _CHANGE_IT, status=400)
    return UpstreamFailure("upstream_rate_limited" if code in BUSY else "upstream_unavailable")


async def _require_answer(
    response: aiohttp.ClientResponse, admission: Admission[ChatRequest]
) -> None:
    if response.status != 200:
        said = await _error_body(response)
        if admission.own_key is None:
            hint = _OPERATORS_HINTS.get(response.status, "")
            log.warning("upstream refused a turn status=%s%s", response.status, hint)
        raise refusal(
            response.status,
            said,
            own_key=admission.own_key is not None,
            retry_after=response.headers.get("Retry-After"),
        )
    expected = "text/event-stream" if admission.request.stream else "application/json"
    if response.content_type != expected or "Content-Encoding" in response.headers:
        raise UpstreamFailure("upstream_unavailable")


async def _error_body(response: aiohttp.ClientResponse) -> Any:
    body = b""
    try:
        while len(body) <= MAX_ERROR_BYTES and (chunk := await read_more(response.content)):
            body += chunk
        return json.loads(body)
    except (UpstreamFailure, ValueError, RecursionError):
        return None  # the status says enough


def _seconds(retry_after: str | None) -> float:
    if retry_after and retry_after.isascii() and retry_after.isdecimal():
        return min(int(retry_after[:9]), _LONGEST_WAIT)
    return 1


def note(breaker: Breaker, code: Code) -> None:
    """An upstream that answers is there, whatever it says; one that fails may not be."""
    if code in ("upstream_unavailable", "upstream_timeout"):
        breaker.failed()
    else:
        breaker.succeeded()
