"""Check 1: the request was sent just now, by the visitor's own clock."""

import re

from security.errors import Rejection

_UNIX_MILLISECONDS = re.compile(r"[0-9]{13}")


def require_fresh(shown: str | None, *, now_ms: int, max_skew: int) -> None:
    """Pass a timestamp within `max_skew` seconds of now, before or after.

    `shown` is Unix time in milliseconds, 13 digits. Raises `Rejection` with timestamp_missing,
    timestamp_malformed or timestamp_stale.
    """
    if shown is None:
        raise Rejection("timestamp_missing")
    if not _UNIX_MILLISECONDS.fullmatch(shown):
        raise Rejection("timestamp_malformed")
    if abs(now_ms - int(shown)) > max_skew * 1000:
        raise Rejection("timestamp_stale")
