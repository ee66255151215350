"""A one-time token: what it says, signed, as text.

The token names a chain and a turn of it. That it is honoured once is not its own doing: the
ledger compares the turn with the chain's integer, so no second spelling of a token helps.
"""

import hashlib
import hmac
import re
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from itsdangerous import BadData, BadSignature, Signer, URLSafeSerializer
from itsdangerous.encoding import base64_decode, base64_encode
from itsdangerous.signer import SigningAlgorithm

from security.errors import Rejection

MAX_LENGTH: Final = 512
LEEWAY_MS: Final = 30_000

# A signature of 256 bits, whose last character carries two bits that say nothing: one spelling.
_SHAPE = re.compile(r"\.?[A-Za-z0-9_-]+\.[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]")
_NAME = re.compile(r"[A-Za-z0-9_-]+")
_PAYLOAD = '{"c":"%s","n":%d,"b":%d,"i":%d,"e":%d,"f":"%s"}'  # of names that need no escapes
_NUMBER = "([1-9][0-9]{0,14})"
_WRITTEN = re.compile(
    rf'{{"c":"([A-Za-z0-9_-]+)","n":{_NUMBER},"b":{_NUMBER},"i":{_NUMBER},"e":{_NUMBER},'
    r'"f":"([A-Za-z0-9_-]+)"}'
)
_EXACT = 1 << 53  # the numbers that Lua counts without a gap


class Claims(NamedTuple):
    """What a token says. Times are Unix milliseconds by the clock of Redis."""

    chain: str
    turn: int
    born_ms: int
    issued_ms: int
    expires_ms: int
    fingerprint: str


class TokenSigner:
    """Turns claims into signed text and back.

    `keys` are oldest first: the last one signs, all of them verify. Tokens of another `tenant`
    are forgeries here.
    """

    def __init__(self, keys: Sequence[str], *, tenant: str) -> None:
        self._salt = f"keyturn.one-time-token.v1.{tenant}"
        self.use(keys)

    def use(self, keys: Sequence[str]) -> None:
        """Take these keys instead, from the next token on."""
        how = {"key_derivation": "hmac", "digest_method": hashlib.sha256}
        self._serializer = URLSafeSerializer(list(keys), self._salt, signer_kwargs=how)
        signer = self._serializer.make_signer()
        derived = [signer.derive_key(key) for key in keys]  # once, and not for each token
        self._signer = Signer(derived, key_derivation="none", algorithm=_Begun(derived))

    def sign(self, claims: Claims) -> str:
        """The token that says these claims; the same claims give the same text."""
        return self._signer.sign(base64_encode(_PAYLOAD % claims)).decode()

    def unsign(self, token: str, *, now_ms: int) -> Claims:
        """The claims of a token that we signed and that is in its time, give or take 30 s.

        Raises `Rejection` with token_malformed, token_forged, token_expired or, for a token from
        the future, chain_unknown.
        """
        if len(token) > MAX_LENGTH or not _SHAPE.fullmatch(token):
            raise Rejection("token_malformed")
        claims = self._verified(token)
        if now_ms > claims.expires_ms + LEEWAY_MS:
            raise Rejection("token_expired")
        if claims.issued_ms > now_ms + LEEWAY_MS:
            raise Rejection("chain_unknown")
        return claims

    def _verified(self, token: str) -> Claims:
        try:
            payload = self._signer.unsign(token)
            return _as_written(payload) or _claims(self._serializer.load_payload(payload))
        except BadSignature:
            raise Rejection("token_forged") from None
        except BadData:
            raise Rejection("token_malformed") from None


class _Begun(SigningAlgorithm):
    """HMAC-SHA256 that is begun once for each key and copied for each token: to look the algorithm
    up takes OpenSSL 3 longer than to hash."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._begun = {key: hmac.new(key, digestmod="sha256") for key in keys}

    def get_signature(self, key: bytes, value: bytes) -> bytes:
        mac = self._begun[key].copy()
        mac.update(value)
        return mac.digest()


def _as_written(payload: bytes) -> Claims | None:
    """The claims of a payload as `sign` writes it: to read any JSON and then to look at what it
    holds takes longer. None for all others."""
    if payload.startswith(b"."):  # compressed, as the library would write it
        return None
    said = _WRITTEN.fullmatch(base64_decode(payload).decode("latin-1"))
    if said is None:
        return None
    chain, turn, born, issued, expires, fingerprint = said.groups()
    return Claims(chain, int(turn), int(born), int(issued), int(expires), fingerprint)


def _claims(said: Any) -> Claims:
    """The claims of a payload, each of exactly its type: they become names and numbers in Redis."""
    try:
        claims = Claims(said["c"], said["n"], said["b"], said["i"], said["e"], said["f"])
    except (KeyError, TypeError):
        raise Rejection("token_malformed") from None
    for name in (claims.chain, claims.fingerprint):
        if not (isinstance(name, str) and _NAME.fullmatch(name)):
            raise Rejection("token_malformed")
    for number in (claims.turn, claims.born_ms, claims.issued_ms, claims.expires_ms):
        if not (type(number) is int and 0 < number < _EXACT):
            raise Rejection("token_malformed")
    return claims
