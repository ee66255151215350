"""Check 2: the token is shown by the browser it was made for.

A fingerprint is whatever the page says about its browser: opaque, of bounded length, chosen by
the visitor. It binds a token to where it was issued; it proves nobody's identity.
"""

import hmac
import re

from security.errors import Rejection

_FINGERPRINT = re.compile(r"[A-Za-z0-9._~-]{16,128}")


def require_well_formed(shown: str | None) -> str:
    """Return the fingerprint shown; raises `Rejection` where it is missing or malformed."""
    if shown is None:
        raise Rejection("fingerprint_missing")
    if not _FINGERPRINT.fullmatch(shown):
        raise Rejection("fingerprint_malformed")
    return shown


def require_match(shown: str, *, sealed: str) -> None:
    """Pass when both keyed hashes are equal, compared in constant time."""
    if not hmac.compare_digest(shown, sealed):
        raise Rejection("fingerprint_mismatch")
