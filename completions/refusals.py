"""What upstream's refusals mean to the visitor, and what they say of a key. Pure.

Nothing of upstream's text goes along: its status decides, and of its body only the error's code.
"""

from typing import Any, Final

from completions.scanner import BUSY, VISITORS_FAULT
from security.errors import UpstreamFailure

_LONGEST_WAIT: Final = 3600
_SHORTEST_WAIT: Final = 1  # with none a refused key would not be set back, and be asked again
_KEY_REFUSED: Final = (401, 429)
_OUT_OF_USE: Final = 300  # seconds for which a key comes last that is revoked, or has no credit
_BUSY_AT_MOST: Final = 60  # the same of one that is asked too often
_CHANGE_IT: Final = "The conversation is too long or was refused. Change it and send it again."


class KeyRefused(UpstreamFailure):
    """Upstream refused an operator's key, and not what was asked; it is no good for `seconds`."""

    def __init__(self, failure: UpstreamFailure, *, status: int, seconds: float) -> None:
        super().__init__(failure.code, retry_after=failure.retry_after)
        self.upstream_status = status
        self.seconds = seconds


def refusal(status: int, said: Any, *, own_key: bool, retry_after: str | None) -> UpstreamFailure:
    """What upstream's error status means to the visitor; nothing of its text goes along."""
    code = _code(said)
    if status == 401 and own_key:
        return UpstreamFailure("byok_key_rejected")
    if status == 429:
        return UpstreamFailure("upstream_rate_limited", retry_after=_seconds(retry_after))
    if status >= 500 or status < 400 or status == 408:
        return UpstreamFailure("upstream_unavailable")
    if isinstance(code, str) and code in VISITORS_FAULT:
        return UpstreamFailure("upstream_rejected", _CHANGE_IT, status=400)
    return UpstreamFailure("upstream_rejected")


def _code(said: Any) -> Any:
    """What upstream calls the error that it reports."""
    error = said.get("error") if isinstance(said, dict) else None
    return error.get("code") if isinstance(error, dict) else None


def reported(code: str | None) -> UpstreamFailure:
    """What an error means to the visitor that upstream reports behind a 200, by what it calls it.

    OpenAI refuses Responses so, when they stream: a conversation that is too long, for one.
    """
    if code in VISITORS_FAULT:
        return UpstreamFailure("upstream_rejected", _CHANGE_IT, status=400)
    return UpstreamFailure("upstream_rate_limited" if code in BUSY else "upstream_unavailable")


def of_operator(status: int, said: Any, *, retry_after: str | None) -> UpstreamFailure:
    """The same of a turn by an operator's key: `KeyRefused` where another key may do."""
    failure = refusal(status, said, own_key=False, retry_after=retry_after)
    if status not in _KEY_REFUSED or failure.status is not None:
        return failure
    is_busy = status == 429 and _code(said) != "insufficient_quota"
    seconds = min(_seconds(retry_after), _BUSY_AT_MOST) if is_busy else _OUT_OF_USE
    return KeyRefused(failure, status=status, seconds=seconds)


def more_hopeful(first: KeyRefused, second: KeyRefused) -> KeyRefused:
    """What to tell of two refusals: to come again later, where that may help."""
    return first if first.code == "upstream_rate_limited" else second


def _seconds(retry_after: str | None) -> float:
    if retry_after and retry_after.isascii() and retry_after.isdecimal():
        return max(_SHORTEST_WAIT, min(int(retry_after[:9]), _LONGEST_WAIT))
    return _SHORTEST_WAIT
