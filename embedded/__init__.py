"""What runs by itself when nothing is configured: a store, a demo upstream, a secret.

The law: each part is a real process behind the same door as the real thing, serves one server,
and ends with it, however that server ends.
"""

from embedded.errors import ChildFailed, EmbeddedError, EmbeddedInUse, StoreMissing
from embedded.parts import Parts, embedded_parts, store_in_use

__all__ = [
    "ChildFailed",
    "EmbeddedError",
    "EmbeddedInUse",
    "Parts",
    "StoreMissing",
    "embedded_parts",
    "store_in_use",
]
