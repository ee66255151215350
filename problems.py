"""Every error on the wire: one table, one body.

The body is RFC 9457 problem+json that also carries OpenAI's `error` object, so that OpenAI's SDKs
read it too. It never holds exception text, upstream text or an echo of the input.
"""

import json
import math
from dataclasses import dataclass
from typing import Final

from security.errors import Chain, Code, Rejection

CONTENT_TYPE: Final = b"application/problem+json"

Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Problem:
    """A row of the failure table. `retry`: whether an SDK may repeat the request by itself."""

    status: int
    title: str
    detail: str
    chain: Chain | None = None
    retry: bool = False


_START_NEW = "Start a new chain: send the next turn without a token."
_KEEP = "No token was spent."

PROBLEMS: Final[dict[Code, Problem]] = {
    "not_found": Problem(404, "Not found", "There is nothing at this address."),
    "method_not_allowed": Problem(
        405, "Method not allowed", "See the Allow header for what this address takes."
    ),
    "request_timeout": Problem(
        408, "The request took too long to arrive", f"Send it again. {_KEEP}", "kept"
    ),
    "payload_too_large": Problem(413, "The body is too large", f"Shorten it. {_KEEP}", "kept"),
    "unsupported_media_type": Problem(
        415,
        "Unsupported media type",
        "Send application/json, optionally with charset=utf-8, and no Content-Encoding.",
        "kept",
    ),
    "headers_too_large": Problem(
        431, "The request head is too large", "Send at most 16 KiB of headers.", "kept"
    ),
    "malformed_json": Problem(
        400, "The body is not JSON", f"Send one JSON object in UTF-8. {_KEEP}", "kept"
    ),
    "header_repeated": Problem(
        400, "A header was sent twice", "Send each of Keyturn's headers once.", "kept"
    ),
    "unsupported_parameter": Problem(
        400, "Unsupported parameter", f"Leave it out. {_KEEP}", "kept"
    ),
    "invalid_request": Problem(422, "Invalid request", f"Correct the body. {_KEEP}", "kept"),
    "origin_forbidden": Problem(
        403,
        "This origin may not chat here",
        "The operator must add this page's origin to ALLOWED_ORIGINS.",
        "kept",
    ),
    "visitor_blocked": Problem(
        403, "Blocked", "The operator has blocked this address for a while.", "kept"
    ),
    "timestamp_missing": Problem(
        400,
        "The timestamp is missing",
        "Send Keyturn-Timestamp: Unix time in milliseconds, 13 digits.",
        "kept",
    ),
    "timestamp_malformed": Problem(
        400,
        "The timestamp is malformed",
        "Keyturn-Timestamp is Unix time in milliseconds, 13 digits.",
        "kept",
    ),
    "timestamp_stale": Problem(
        401,
        "The timestamp is too far from now",
        "Correct your clock by server_time_ms and send it again, once.",
        "kept",
    ),
    "fingerprint_missing": Problem(
        400,
        "The fingerprint is missing",
        "Send Keyturn-Fingerprint: 16 to 128 of A-Z, a-z, 0-9, '.', '_', '~' and '-'.",
        "kept",
    ),
    "fingerprint_malformed": Problem(
        400,
        "The fingerprint is malformed",
        "Keyturn-Fingerprint is 16 to 128 of A-Z, a-z, 0-9, '.', '_', '~' and '-'.",
        "kept",
    ),
    "fingerprint_mismatch": Problem(
        403, "This token belongs to another browser", _START_NEW, "kept"
    ),
    "token_malformed": Problem(401, "This is not a token", _START_NEW, "none"),
    "token_forged": Problem(401, "This token is not ours", _START_NEW, "none"),
    "token_expired": Problem(401, "This token has expired", _START_NEW, "none"),
    "chain_unknown": Problem(401, "This chain is not known", _START_NEW, "none"),
    "chain_revoked": Problem(401, "This chain was revoked", _START_NEW, "revoked"),
    "rate_limited": Problem(
        429, "Too many requests", f"Wait as long as Retry-After says. {_KEEP}", "kept", retry=True
    ),
    "start_limited": Problem(
        429, "Too many new chats", "Wait as long as Retry-After says.", "kept", retry=True
    ),
    "too_many_streams": Problem(
        429,
        "Too many answers at a time",
        f"Let a running answer finish or stop it. {_KEEP}",
        "kept",
        retry=True,
    ),
    "token_reused": Problem(
        401,
        "This token was already used",
        "A used token came back late, so its chain was revoked. " + _START_NEW,
        "revoked",
    ),
    "duplicate_request": Problem(
        409,
        "This turn was already admitted",
        "Its answer was lost; Keyturn-Token holds its successor. Send again with it and a new "
        "Idempotency-Key.",
        "advanced",
    ),
    "idempotency_conflict": Problem(
        422,
        "This Idempotency-Key was used for another turn",
        "Use a new one for every send, and the same one only to repeat it unchanged.",
        "kept",
    ),
    "budget_visitor": Problem(
        429,
        "Your budget for today has no room for this turn",
        "It is reset at midnight UTC.",
        "kept",
    ),
    "budget_exhausted": Problem(
        503, "Today's budget has no room for this turn", "It is reset at midnight UTC.", "kept"
    ),
    "paused": Problem(503, "Paused by the operator", f"Try again later. {_KEEP}", "kept"),
    "overloaded": Problem(
        503, "The server is busy", f"Try again in a moment. {_KEEP}", "kept", retry=True
    ),
    "store_unavailable": Problem(
        503,
        "The server cannot check this request now",
        "Try again with the same Idempotency-Key.",
        "kept",
        retry=True,
    ),
    "upstream_rejected": Problem(
        502, "The model's server refused this turn", "Use the next token.", "advanced"
    ),
    "upstream_rate_limited": Problem(
        503,
        "The model's server is busy",
        "Wait as long as Retry-After says, then use the next token.",
        "advanced",
    ),
    "upstream_timeout": Problem(
        504, "The model's server did not answer in time", "Use the next token.", "advanced"
    ),
    "upstream_unavailable": Problem(
        502, "The model's server cannot be reached", "Use the next token.", "advanced"
    ),
    "byok_disabled": Problem(403, "Own keys are not taken here", "Chat without one.", "none"),
    "byok_key_malformed": Problem(
        401, "This is not an API key", "API key must start with sk- and hold no blanks", "none"
    ),
    "byok_key_rejected": Problem(
        401, "Your API key was refused", "The model's server does not accept it.", "none"
    ),
    "operator_only": Problem(
        401,
        "This is for the operator",
        "Send Authorization: Bearer with ADMIN_TOKEN, or log in at /admin.",
    ),
    "internal_error": Problem(500, "Something broke on our side", "Try again."),
}

_SOON: Final = 5  # seconds, as admit.lua says where money is only held
_RENEWED: Final = (
    "The store was restarted or failed over, and may not know what was spent. Your chat goes on "
    "as a new chain: Keyturn-Token holds its first token. Send again with it."
)
_REUSED_IN_GRACE: Final = (
    "Another request used this token a moment ago. Use its successor, or start a new chain."
)


def body_of(rejection: Rejection, *, request_id: str, now_ms: int, own_keys: bool = False) -> bytes:
    """The problem+json body of a rejection; `own_keys` says that visitors may bring theirs."""
    problem = PROBLEMS[rejection.code]
    chain = chain_of(rejection)
    status = rejection.status or problem.status
    detail = detail_of(rejection, own_keys=own_keys)
    fields = {
        "type": f"urn:keyturn:problem:{rejection.code}",
        "title": problem.title,
        "status": status,
        "detail": detail,
        "code": rejection.code,
        **({"chain": chain} if chain else {}),
        **({"param": rejection.param} if rejection.param else {}),
        "request_id": request_id,
        "server_time_ms": now_ms,
        "error": openai_error(rejection, detail),
    }
    return json.dumps(fields, separators=(",", ":")).encode()


def detail_of(rejection: Rejection, *, own_keys: bool = False) -> str:
    """What happened and what to do: the row's words, where they fit this rejection's chain."""
    code, chain = rejection.code, chain_of(rejection)
    if rejection.detail:
        return rejection.detail
    if code in ("budget_visitor", "budget_exhausted"):
        return _what_then(rejection.retry_after or 0, own_keys)
    if code == "token_reused" and chain == "kept":
        return _REUSED_IN_GRACE
    if code == "chain_unknown" and chain == "advanced":
        return _RENEWED
    if code == "upstream_rejected" and chain == "none":
        return "Change the conversation, or look at what your key may do."
    if code.startswith("upstream_") and chain == "none":
        return "Try again in a while."
    return PROBLEMS[code].detail


def _what_then(seconds: float, own_keys: bool) -> str:
    """What is left to do when the money is gone."""
    hours, minutes = divmod(math.ceil(seconds / 60), 60)
    wait = f"{hours} h {minutes} min" if hours else f"{minutes} min"
    instead = " Until then your own API key works all the same." if own_keys else ""
    if seconds <= _SOON:
        return f"Turns that run now hold it. Try again in a moment. {_KEEP}{instead}"
    shorter = "A shorter one may still fit."
    return f"It is reset at midnight UTC, in {wait}. {shorter} {_KEEP}{instead}"


def openai_error(rejection: Rejection, detail: str | None = None) -> dict[str, str | None]:
    """The `error` object that OpenAI's SDKs expect, also inside a stream."""
    problem = PROBLEMS[rejection.code]
    status = rejection.status or problem.status
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return {
        "message": rejection.detail or f"{problem.title}. {detail or detail_of(rejection)}",
        "type": "rate_limit_error" if status == 429 else kind,
        "code": rejection.code,
        "param": rejection.param,
    }


def error_frame(rejection: Rejection) -> bytes:
    """The one SSE frame with which a failing stream of Chat Completions ends."""
    return b"data: " + json.dumps({"error": openai_error(rejection)}).encode() + b"\n\n"


def error_event(rejection: Rejection, number: int) -> bytes:
    """The event with which a failing stream of Responses ends.

    It says the same twice, for two kinds of clients: OpenAI's description has its fields flat, its
    service sends them within `error`, and SDKs look for either.
    """
    error = openai_error(rejection)
    flat = {name: error[name] for name in ("code", "message", "param")}
    said = {"type": "error", "sequence_number": number, **flat, "error": error}
    return b"event: error\ndata: " + json.dumps(said).encode() + b"\n\n"


def chain_of(rejection: Rejection) -> Chain | None:
    """What became of the visitor's chain; None where no chain is concerned."""
    if rejection.chain is None and rejection.next_token:
        return "advanced"
    return rejection.chain or PROBLEMS[rejection.code].chain


def headers_of(rejection: Rejection) -> Headers:
    """The headers that say what to do next."""
    problem = PROBLEMS[rejection.code]
    status = rejection.status or problem.status
    headers = [(b"content-type", CONTENT_TYPE), (b"cache-control", b"no-store")]
    if rejection.next_token:
        headers.append((b"keyturn-token", rejection.next_token.encode()))
    if status in (429, 503):
        headers.append(
            (b"retry-after", str(max(1, math.ceil(rejection.retry_after or 1))).encode())
        )
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if not problem.retry or rejection.next_token:  # what was sent is spent
        headers.append((b"x-should-retry", b"false"))
    return headers
