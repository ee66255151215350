"""Names for visitors that say nothing about them: HMAC-SHA256 cut to 128 bits.

Addresses, fingerprints, idempotency keys and bodies are compared and stored only as these
hashes. One label per purpose keeps two hashes of the same bytes apart.
"""

import base64
import hmac
from typing import Literal

Label = Literal["addr", "fp", "idem", "body", "chain", "safety"]

_LABELS: dict[str, bytes] = {
    label: label.encode() + b"\0" for label in ("addr", "fp", "idem", "body", "chain", "safety")
}


class KeyedHash:
    """Hashes bytes under one key: 22 characters of base64url for every label and input."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def __call__(self, label: Label, data: bytes) -> str:
        """The hash of `data` for the purpose that `label` names."""
        digest = hmac.digest(self._key, _LABELS[label] + data, "sha256")
        return base64.urlsafe_b64encode(digest[:16]).rstrip(b"=").decode()


def derive_key(secret: str) -> bytes:
    """A 256-bit key for hashing, independent of the signatures made with `secret`.

    HKDF-SHA256 (RFC 5869) with a fixed salt and info, one block of output.
    """
    extracted = hmac.digest(b"keyturn", secret.encode(), "sha256")
    return hmac.digest(extracted, b"identity\x01", "sha256")
