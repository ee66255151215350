"""Who is the operator: whoever shows the token, or a session that was begun with it.

The law: a session is no token. It is signed by a key made of the token, so that a new token ends
all sessions, in every worker; it names itself and its end, and nothing else. Pure.
"""

import hashlib
import hmac
import re
from dataclasses import dataclass
from typing import Any, Final

from itsdangerous import BadData, URLSafeSerializer

LASTS: Final = 8 * 3600  # seconds
_MOST: Final = 256
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{22}")


@dataclass(frozen=True, slots=True)
class Session:
    """A session by its name, which may be logged, and its end in Unix seconds."""

    name: str
    ends: int


class Operator:
    """Knows the operator by the token, and signs sessions."""

    def __init__(self, token: str, *, tenant: str) -> None:
        self._digest = _digest(token)
        key = hmac.digest(token.encode(), b"keyturn operator session", "sha256")
        self._serializer = URLSafeSerializer(
            key,
            salt=f"keyturn.operator.v1.{tenant}",
            signer_kwargs={"key_derivation": "hmac", "digest_method": hashlib.sha256},
        )

    def is_token(self, shown: str) -> bool:
        """Whether this is the token, told in the same time whatever it is."""
        return hmac.compare_digest(_digest(shown), self._digest)

    def sign(self, session: Session) -> str:
        """The session as text for a cookie."""
        text = self._serializer.dumps({"s": session.name, "e": session.ends})
        return text if isinstance(text, str) else text.decode()

    def unsign(self, text: str, *, now: float) -> Session | None:
        """The session that we signed, while it lasts."""
        try:
            said = self._serializer.loads(text) if len(text) <= _MOST else None
        except BadData:
            return None
        session = _session(said)
        return session if session and now < session.ends <= now + LASTS else None


def _session(said: Any) -> Session | None:
    if not isinstance(said, dict):
        return None
    name, ends = said.get("s"), said.get("e")
    if not (isinstance(name, str) and _NAME.fullmatch(name) and type(ends) is int):
        return None
    return Session(name, ends)


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
