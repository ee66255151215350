"""The door to OpenAI, and to any server that speaks its API.

Only an `Admission` opens it. Key and destination are one unit: the operator's keys go to the
operator's upstream, a visitor's own key to the one meant for own keys, and never crosswise. No
redirect is followed, the environment's proxies are not used, and nothing is retried, but for one
case: where upstream refuses one of several operator's keys, the turn is asked once more by another.
"""

import json
import logging
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.connector import Connection
from pydantic import SecretStr

from completions.charge import Meter
from completions.operator_keys import OperatorKey, OperatorKeys
from completions.refusals import KeyRefused, more_hopeful, of_operator, refusal
from completions.request import ChatRequest
from patience import Patience
from security.breaker import Breaker
from security.errors import Code, UpstreamFailure
from security.gate import Admission

log = logging.getLogger("keyturn")

MAX_ANSWER_BYTES: Final = 16 << 20
MAX_ERROR_BYTES: Final = 64 << 10
# Bytes of an answer that may lie here while its visitor takes nothing in, of many visitors each.
# More would not make an answer faster that is written word by word.
_RECEIVED: Final = 24 << 10
_UNREAD: Final = 4 << 10
_OPENAI: Final = re.compile(
    r"https?://([a-z0-9-]+\.)*api\.openai\.com\.?(:[0-9]*)?(/.*)?", re.ASCII | re.IGNORECASE
)

_HINTS: Final = {
    401: ": look at OPENAI_API_KEY",
    403: ": look at OPENAI_API_KEY and what it may do",
    404: ": look at OPENAI_BASE_URL and ALLOWED_MODELS",
}


@dataclass(frozen=True, slots=True)
class Destination:
    """Where requests go, by which keys of the operator, and whether asking is worth it now."""

    url: str
    keys: OperatorKeys
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

    @property
    def keys(self) -> OperatorKeys:
        """The operator's."""
        return self._operator.keys

    @asynccontextmanager
    async def complete(
        self, admission: Admission[ChatRequest], meter: Meter, request_id: str
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer to an admitted request, its headers read; left, the connection is closed.

        `meter` is told when the request leaves, and whether upstream served it; upstream, in
        `X-Client-Request-Id`, what our log calls it. Raises `UpstreamFailure` for anything but a
        200 of the kind that was asked for.
        """
        by_operator = admission.own_key is None
        breaker = (self._operator if by_operator else self._own_key).breaker
        try:
            async with await self._ask(admission, meter, request_id) as response:
                try:
                    breaker.succeeded()
                    yield response
                finally:
                    if not response.content.at_eof():
                        response.close()
        except (aiohttp.ClientError, TimeoutError, OSError) as failure:
            breaker.failed()
            raise failure_of(failure) from None
        except UpstreamFailure as failure:
            note(breaker, failure.code)
            if by_operator and meter.status not in (None, 200):
                hint = _HINTS.get(meter.status, "")
                log.warning("upstream refused a turn status=%s%s", meter.status, hint)
            raise

    async def _ask(
        self, admission: Admission[ChatRequest], meter: Meter, request_id: str
    ) -> aiohttp.ClientResponse:
        """The answer by the visitor's own key, or by the first of the operator's that may do."""
        ask = partial(self._post, admission, meter, request_id)
        if admission.own_key is not None:
            return await ask(self._own_key.url, admission.own_key)
        keys, url = self._operator.keys, self._operator.url
        key = keys.first
        if key is None:
            raise UpstreamFailure("upstream_unavailable")
        try:
            return await ask(url, key.secret)
        except KeyRefused as refused:
            first = refused
            set_back(keys, key, refused)
            key = keys.untried
            if key is None:
                raise
        meter.begin_again()
        try:
            return await ask(url, key.secret)
        except KeyRefused as refused:
            set_back(keys, key, refused)
            raise more_hopeful(first, refused) from None

    async def _post(
        self,
        admission: Admission[ChatRequest],
        meter: Meter,
        request_id: str,
        url: str,
        key: SecretStr,
    ) -> aiohttp.ClientResponse:
        response = await self._session.post(
            f"{url}/{admission.request.api}",
            data=_Metered(_body(admission), meter),
            headers={
                "Authorization": f"Bearer {key.get_secret_value()}",
                "Content-Type": "application/json",
                "X-Client-Request-Id": request_id,
            },
            allow_redirects=False,
        )
        try:
            meter.status, meter.refused = response.status, response.status >= 300
            await _require_answer(response, admission)
        except BaseException:
            if not response.content.at_eof():
                response.close()
            response.release()
            raise
        return response


def set_back(keys: OperatorKeys, key: OperatorKey, refused: KeyRefused) -> None:
    """Let a refused key come last for its time, and tell the operator once which one it is."""
    current = keys.set_back(key, refused.seconds)
    if current and current.of > 1:
        log.warning(
            "upstream refused key %s of %s in OPENAI_API_KEY status=%s: it comes last for %s s",
            *(current.place, current.of, refused.upstream_status, round(refused.seconds)),
        )


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
        failure.__traceback__ = None  # `source` keeps it, and its frames hold `source`
        raise failure_of(failure) from None
    except RuntimeError:  # aiohttp's for a connection that it closed itself, over broken HTTP
        raise UpstreamFailure("upstream_unavailable") from None


async def _require_answer(
    response: aiohttp.ClientResponse, admission: Admission[ChatRequest]
) -> None:
    if response.status != 200:
        said, retry_after = await _error_body(response), response.headers.get("Retry-After")
        if admission.own_key is None:
            raise of_operator(response.status, said, retry_after=retry_after)
        raise refusal(response.status, said, own_key=True, retry_after=retry_after)
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


def note(breaker: Breaker, code: Code) -> None:
    """An upstream that answers is there, whatever it says; one that fails may not be."""
    if code in ("upstream_unavailable", "upstream_timeout"):
        breaker.failed()
    else:
        breaker.succeeded()
