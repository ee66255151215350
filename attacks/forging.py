"""Tokens as a forger makes them: taken apart, and signed again by whoever has which key."""

import base64
import hashlib
import hmac
import json
from typing import Any, Final

from itsdangerous import Serializer, URLSafeSerializer, URLSafeTimedSerializer

from tests.attacks.canaries import OPERATORS

ALPHABET: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
KEYS: Final = [OPERATORS["secret"], OPERATORS["newer secret"]]
SALT: Final = "keyturn.one-time-token.v1.main"


def parts(token: str) -> tuple[str, str]:
    """Payload and signature."""
    payload, _, signature = token.rpartition(".")
    return payload, signature


def claims_of(token: str) -> dict[str, Any]:
    """What a token says, its signature unseen."""
    return dict(URLSafeSerializer("").load_payload(parts(token)[0].encode()))


def signed(
    claims: Any,
    *,
    keys: list[str] | str = KEYS,
    salt: str = SALT,
    digest: Any = hashlib.sha256,
    derivation: str = "hmac",
    serializer: type[Serializer[Any]] = URLSafeSerializer,
) -> str:
    """A token that says this, signed as ours are unless said otherwise."""
    how = {"key_derivation": derivation, "digest_method": digest}
    text = serializer(keys, salt=salt, signer_kwargs=how).dumps(claims)
    return text if isinstance(text, str) else text.decode()


def resigned(token: str, **changed: Any) -> str:
    """The same token with other claims, by the true key: what only we could make."""
    return signed({**claims_of(token), **changed})


def other_end(token: str) -> str:
    """The same bits, written with another last character."""
    last = ALPHABET.index(token[-1])
    return token[:-1] + ALPHABET[last ^ 1]


def flipped(token: str, at: int) -> str:
    """The token with another character at one place."""
    char = "A" if token[at] != "A" else "B"
    return token[:at] + char + token[at + 1 :] if at != -1 else token[:-1] + char


def jwt(claims: dict[str, Any], algorithm: str, key: str | None = None) -> str:
    """A JSON Web Token of these claims; without a key its signature is empty."""
    head = _segment({"alg": algorithm, "typ": "JWT"}) + "." + _segment(claims)
    if key is None:
        return head + "."
    return head + "." + _base64(hmac.digest(key.encode(), head.encode(), "sha256"))


def timed(token: str) -> str:
    """The claims by a signer that adds the time."""
    return signed(claims_of(token), serializer=URLSafeTimedSerializer)


def _segment(said: Any) -> str:
    return _base64(json.dumps(said, separators=(",", ":")).encode())


def _base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
