"""`check --live`: each allowed model is asked for one token and must keep to it, by each key.

The law: it is asked like any visitor's turn, through the gate, held and settled, so that what it
costs stands in today's budget. No text and no key of either side is printed.
"""

import asyncio
import json
import time
from dataclasses import dataclass
from typing import Final

from completions.chat import parse_chat
from completions.grammars import ChatScanner
from completions.prices import Usage, read_usage
from completions.relay import relay_stream
from completions.request import ChatRequest
from edge import now_ms
from findings import Finding, State
from house import Keyturn
from money_report import usd
from problems import PROBLEMS
from security.errors import Rejection, UpstreamFailure
from security.gate import Admission, Credentials
from security.scripts import Visitor

US: Final = Visitor("check")
PROMPT: Final = "Count from one to twenty."

_FINGERPRINT: Final = "keyturn-check-live"
_MOST_DELTAS: Final = 256  # read for the sake of the usage at their end, then cut
_LONG: Final = 16  # bytes; no token of such an answer has more
_LIMIT_FIELD: Final = "change its output_limit_field in PRICES_FILE"
_TOO_LITTLE: Final = (
    "refuses a limit of 1 token (status 400), as models that think do; whether it keeps to a limit "
    "was not seen. Does it refuse all else too, look at output_limit_field in PRICES_FILE"
)
_ELSEWHERE: Final = "look at OPENAI_BASE_URL"
_STATUS: Final = {
    400: "look at output_limit_field in PRICES_FILE, and whether it is a model for chats",
    401: "look at OPENAI_API_KEY",
    403: "look at OPENAI_API_KEY and what it may do",
    404: "no such model or URL, look at OPENAI_BASE_URL and ALLOWED_MODELS",
    429: "too many requests, or the account has no credit left",
}
_UNHEARD: Final = {
    "upstream_timeout": "it does not answer in time: look at OPENAI_BASE_URL",
    "upstream_unavailable": "it is not there, or breaks off: look at OPENAI_BASE_URL",
}


@dataclass(frozen=True, slots=True)
class Seen:
    """What came of a turn: its answer's status, deltas and bytes of text, and its price in µUSD."""

    status: int | None
    failure: UpstreamFailure | None
    deltas: int
    text_bytes: int
    usage: Usage | None
    limit: int
    reasoning: bool
    cost: int
    milliseconds: int

    @property
    def went_past(self) -> bool:
        """Whether the answer shows that upstream took no notice of the limit."""
        if self.deltas > self.limit or (self.usage and self.usage.output > self.limit):
            return True
        return self.usage is None and self.text_bytes > _LONG * self.limit


async def about_models(keyturn: Keyturn) -> list[Finding]:
    """Ask each allowed model by the first key, and one by each other key, in one conversation."""
    if not keyturn.settings.openai_api_key:
        text = "the demo upstream makes its answers up, so no model is asked: set OPENAI_API_KEY"
        return [Finding("live", "warning", text)]
    first, *others = keyturn.settings.openai_api_key
    keyturn.upstream.keys.replace([first])  # of this command's own house: no other stands in
    found, token = [], None
    for model in keyturn.settings.allowed_models:
        finding, token = await _about(keyturn, model, model, token)
        found.append(finding)
    model = keyturn.settings.default_model
    for place, key in enumerate(others, start=2):
        keyturn.upstream.keys.replace([key])
        subject = f"key {place} of {len(others) + 1}, {model}"
        finding, token = await _about(keyturn, subject, model, token)
        found.append(finding)
    return found


async def _about(
    keyturn: Keyturn, subject: str, model: str, token: str | None
) -> tuple[Finding, str | None]:
    """What comes of a turn with this token, and the token of the next one."""
    try:
        admission = await _admit(keyturn, model, token)
    except Rejection as refusal:
        text = f"{subject} was not asked: {PROBLEMS[refusal.code].title}"
        return Finding("live", "fault", f"{text} ({refusal.code}); try again later"), token
    return judge(subject, await _ask(keyturn, admission)), admission.next_token


def judge(subject: str, seen: Seen) -> Finding:
    """What an answer says of a model and its entry in PRICES_FILE, or of a key."""
    state, text = _verdict(seen)
    return Finding("live", state, f"{subject}: {text}")


def _verdict(seen: Seen) -> tuple[State, str]:
    if seen.went_past:
        wrote = f"{seen.usage.output} tokens" if seen.usage else f"{seen.text_bytes} bytes"
        return "fault", f"ignores the output limit (1 token): wrote {wrote}; {_LIMIT_FIELD}"
    if seen.failure:
        return _meaning(seen, seen.failure)
    took, cost = f"answered in {seen.milliseconds} ms", f"{usd(seen.cost)} USD"
    if seen.usage is None:
        return "warning", f"{took}, without usage: charges will be estimates ({cost} here)"
    return "ok", f"{took}: {seen.usage.prompt} + {seen.usage.output} tokens, {cost}"


def _meaning(seen: Seen, failure: UpstreamFailure) -> tuple[State, str]:
    status = seen.status
    if status is None:
        return "fault", _UNHEARD.get(failure.code, _UNHEARD["upstream_unavailable"])
    if status == 200:
        return "fault", "answers, but not with a whole event stream: look at OPENAI_BASE_URL"
    if status == 400 and seen.reasoning:
        return "warning", _TOO_LITTLE
    otherwise = "a failure of its own, try again later" if status >= 500 else _ELSEWHERE
    return "fault", f"status {status}: {_STATUS.get(status, otherwise)}"


async def _admit(keyturn: Keyturn, model: str, token: str | None) -> Admission[ChatRequest]:
    message = {"role": "user", "content": PROMPT}
    body = {"model": model, "messages": [message], "stream": True, "max_tokens": 1}
    shown = Credentials(
        visitor=US,
        timestamp=str(now_ms()),
        fingerprint=_FINGERPRINT,
        token=token,
        idempotency_key=None,
    )

    async def read_request() -> ChatRequest:
        return parse_chat(json.dumps(body).encode(), keyturn.policy)

    return await keyturn.gate.admit(shown, read_request)


async def _ask(keyturn: Keyturn, admission: Admission[ChatRequest]) -> Seen:
    turn, began = keyturn.turns.open(admission), time.monotonic()
    scanner = ChatScanner(keep_usage=False)
    failure = None
    try:
        asking = keyturn.upstream.complete(admission, turn.meter, admission.rid)
        with turn.deadline:
            async with asking as answer:
                turn.meter.scanner = scanner
                patience = keyturn.patience.keep_alive
                await relay_stream(answer.content, _Nobody(), scanner, patience, _MOST_DELTAS)
    except UpstreamFailure as said:
        failure = said
    except TimeoutError:
        failure = UpstreamFailure("upstream_timeout")
    finally:
        turn.settle_soon()
    took = round((time.monotonic() - began) * 1000)
    await turn.settle()
    return Seen(
        status=turn.meter.status,
        failure=failure,
        deltas=scanner.deltas,
        text_bytes=scanner.text_bytes,
        usage=read_usage(scanner.usage) if scanner.usage_is_final else None,
        limit=admission.hold.max_output if admission.hold else 1,
        reasoning=admission.request.price.reasoning,
        cost=turn.charge(),
        milliseconds=took,
    )


class _Nobody:
    """Who reads the answer: it is only counted."""

    async def write(self, data: bytes) -> None:
        """Take the bytes and keep none."""
        await asyncio.sleep(0)
