"""Names for visitors that say nothing about them: HMAC-SHA256 cut to 128 bits.

Addresses, fingerprints, idempotency keys and bodies are compared and stored only as these
hashes. One label per purpose keeps two hashes of the same bytes apart.
"""

import base64
import hmac
from functools import lru_cache
from typing import Literal

Label = Literal["addr", "fp", "idem", "body", "chain", "safety"]

_LABELS: dict[str, bytes] = {
    label: label.encode() + b"\0" for label in ("addr", "fp", "idem", "body", "chain", "safety")
}


class KeyedHash:
    """Hashes bytes under one key: 22 characters of base64url for every label and input."""

    def __init__(self, key: bytes) -> None:
        # Begun once and copied: to look the algorithm up takes OpenSSL 3 longer than to hash.
        self._begun = {label: hmac.new(key, said, "sha256") for label, said in _LABELS.items()}
        self.of_prefix = lru_cache(maxsize=1024)(self._of_prefix)

    def __call__(self, label: Label, data: bytes) -> str:
        """The hash of `data` for the purpose that `label` names."""
        mac = self._begun[label].copy()
        mac.update(data)
        return base64.urlsafe_b64encode(mac.digest()[:16]).rstrip(b"=").decode()

    def _of_prefix(self, prefix: str) -> str:
        """The name of whoever asks from these addresses; the last ones asked for are kept."""
        return self("addr", prefix.encode())


def derive_key(secret: str) -> bytes:
    """A 256-bit key for hashing, independent of the signatures made with `secret`.

    HKDF-SHA256 (RFC 5869) with a fixed salt and info, one block of output.
    """
    extracted = hmac.digest(b"keyturn", secret.encode(), "sha256")
    return hmac.digest(extracted, b"identity\x01", "sha256")
