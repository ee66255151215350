"""The door to OpenAI, and to any server that speaks its API.

Only an `Admission` opens it. Key and destination are one unit: the operator's keys go to the
operator's upstream, a visitor's own key to the one meant for own keys, and never crosswise. No
redirect is followed, the environment's proxies are not used, and nothing is retried, but for one
case: where upstream refuses one of several operator's keys, the turn is asked once more by another.
"""

import json
import logging
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Final

import aiohttp
from aiohttp import hdrs
from pydantic import SecretStr

from completions.charge import Meter
from completions.connections import Answer, Pool
from completions.operator_keys import OperatorKey, OperatorKeys
from completions.refusals import KeyRefused, more_hopeful, of_operator, refusal
from completions.request import ChatRequest
from security.breaker import Breaker
from security.errors import Code, UpstreamFailure
from security.gate import Admission

log = logging.getLogger("keyturn")

MAX_ANSWER_BYTES: Final = 16 << 20
MAX_ERROR_BYTES: Final = 64 << 10
_BROKEN: Final = (aiohttp.ClientError, TimeoutError, OSError)
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


class Upstream:
    """Sends admitted requests upstream, by the operator's key or the visitor's own."""

    def __init__(self, pool: Pool, *, operator: Destination, own_key: Destination) -> None:
        self._pool = pool
        self._operator = operator
        self._own_key = own_key

    @property
    def keys(self) -> OperatorKeys:
        """The operator's."""
        return self._operator.keys

    def complete(
        self, admission: Admission[ChatRequest], meter: Meter, request_id: str
    ) -> "_Asked":
        """The answer to an admitted request, its headers read; left, the connection is closed.

        `meter` is told when the request leaves, and whether upstream served it; upstream, in
        `X-Client-Request-Id`, what our log calls it. Raises `UpstreamFailure` for anything but a
        200 of the kind that was asked for.
        """
        by_operator = admission.own_key is None
        breaker = (self._operator if by_operator else self._own_key).breaker
        ask = partial(self._ask, admission, meter, request_id)
        return _Asked(ask, breaker, meter if by_operator else None)

    async def _ask(
        self, admission: Admission[ChatRequest], meter: Meter, request_id: str
    ) -> Answer:
        """The answer by the visitor's own key, or by the first of the operator's that may do.

        Whoever asked closes it.
        """
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
    ) -> Answer:
        headers = {
            hdrs.AUTHORIZATION: f"Bearer {key.get_secret_value()}",
            hdrs.CONTENT_TYPE: "application/json",
            "X-Client-Request-Id": request_id,
        }
        to = f"{url}/{admission.request.api}"
        answer = await self._pool.post(to, headers, _body(admission), meter)
        meter.status, meter.refused = answer.status, answer.status >= 300
        if _is_answer(answer, admission.request):
            return answer
        try:
            raise await _refusal(answer, admission)
        finally:
            answer.leave()


class _Asked:
    """An answer while it is read: the breaker is told how asking went, and reading it."""

    def __init__(
        self,
        ask: Callable[[], Awaitable[Answer]],
        breaker: Breaker,
        told: Meter | None,
    ) -> None:
        self._ask = ask
        self._breaker = breaker
        self._told = told  # what upstream said, where that concerns the operator

    async def __aenter__(self) -> Answer:
        try:
            self._answer = await self._ask()
        except (*_BROKEN, UpstreamFailure) as failure:
            self._failed(failure)
            raise
        self._breaker.succeeded()
        return self._answer

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._answer.leave()
        if error is not None:
            self._failed(error)

    def _failed(self, failure: BaseException) -> None:
        """Tell the breaker and the log; what broke becomes what it means to the visitor."""
        if isinstance(failure, UpstreamFailure):
            note(self._breaker, failure.code)
            if self._told and self._told.status not in (None, 200):
                hint = _HINTS.get(self._told.status, "")
                log.warning("upstream refused a turn status=%s%s", self._told.status, hint)
        elif isinstance(failure, _BROKEN):
            self._breaker.failed()
            raise failure_of(failure) from None


def set_back(keys: OperatorKeys, key: OperatorKey, refused: KeyRefused) -> None:
    """Let a refused key come last for its time, and tell the operator once which one it is."""
    current = keys.set_back(key, refused.seconds)
    if current and current.of > 1:
        log.warning(
            "upstream refused key %s of %s in OPENAI_API_KEY status=%s: it comes last for %s s",
            *(current.place, current.of, refused.upstream_status, round(refused.seconds)),
        )


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
    except _BROKEN as failure:
        failure.__traceback__ = None  # `source` keeps it, and its frames hold `source`
        raise failure_of(failure) from None
    except RuntimeError:  # aiohttp's for a connection that it closed itself, over broken HTTP
        raise UpstreamFailure("upstream_unavailable") from None


def _is_answer(answer: Answer, request: ChatRequest) -> bool:
    expected = "text/event-stream" if request.stream else "application/json"
    fits = answer.status == 200 and answer.media_type == expected
    return fits and hdrs.CONTENT_ENCODING not in answer.headers


async def _refusal(answer: Answer, admission: Admission[ChatRequest]) -> UpstreamFailure:
    if answer.status == 200:
        return UpstreamFailure("upstream_unavailable")
    said, retry_after = await _error_body(answer), answer.headers.get(hdrs.RETRY_AFTER)
    if admission.own_key is None:
        return of_operator(answer.status, said, retry_after=retry_after)
    return refusal(answer.status, said, own_key=True, retry_after=retry_after)


async def _error_body(answer: Answer) -> Any:
    body = b""
    try:
        while len(body) <= MAX_ERROR_BYTES and (chunk := await read_more(answer.content)):
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
