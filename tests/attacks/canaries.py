"""Canaries: secrets that are easy to recognise, in every dress in which one might get out."""

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import quote

import redis

OPERATORS = {
    "operator's key": "sk-operator-Zq81xWvJ3kPdR7tY",
    "secret": "first-secret-Kd93hSgQ0zLmB5nCxV2w8e7r6t",
    "newer secret": "newer-secret-Pw02jXrTyH8uQkZ4a1s9d7f3gh",
    "identity key": "identity-key-Mb47vNcXlG6yEoRi5u8t2q0w1e",
}
VISITORS = {
    "own key": "sk-visitor-Ht55bQpLcVn0Jm2s",
    "fingerprint": "fingerprint-Xe6Ua9Wk1Os4Di7P",
    "idempotency key": "idempotency-Gf2Rz8Yq3Bv6Nw5T",
    "address": "198.51.100.237",
    "wider address": "2001:db8:c0de:f00d:1:2:3:4",
}
TEXTS = {
    "message": "a private wish about Quokkas-9a8b7c",
    "developer message": "a private rule about Wombats-6d5e4f",
    "history": "a private past with Numbats-3c2b1a",
}
UPSTREAMS = {
    "upstream's organisation": "org-of-the-visitor-Lk7Jh6Gf5D",
    "upstream's request": "req-of-upstream-Aa1Ss2Dd3F",
    "upstream's words": "Incorrect API key provided by Mx. Qwerty",
}
_SHORT = 20


def forms(canary: str) -> Iterator[bytes]:
    """The canary as it is, reversed, halved, hex, base64 at any offset, and escaped."""
    raw = canary.encode()
    yield from (raw, raw[::-1], raw.hex().encode(), "".join(f"%{b:02x}" for b in raw).encode())
    yield from (quote(canary, safe="").encode(), json.dumps(canary)[1:-1].encode())
    for offset, lost in enumerate((0, 2, 3)):  # characters that share bits with what stands before
        inside = base64.b64encode(b"x" * offset + raw)[lost:-4]
        yield from (inside, inside.replace(b"+", b"-").replace(b"/", b"_"))
    if len(raw) >= _SHORT:
        yield from (raw[: len(raw) // 2], raw[len(raw) // 2 :])


def hits(canaries: dict[str, str], text: bytes) -> list[str]:
    """Which canaries got out, by their names; hex and percent signs in any case."""
    low = text.lower()
    return [
        name
        for name, canary in canaries.items()
        if any(form in text or form.lower() in low for form in forms(canary))
    ]


def dump(redis_url: str) -> bytes:
    """Every key and value of a Redis, in one text."""
    with redis.Redis.from_url(redis_url) as store:
        return b"\n".join(_row(store, key) for key in store.scan_iter())


def _row(store: "redis.Redis", key: bytes) -> bytes:
    kind = store.type(key)
    if kind == b"hash":
        value: object = store.hgetall(key)
    elif kind == b"zset":
        value = store.zrange(key, 0, -1, withscores=True)
    else:
        value = store.get(key)
    return key + b" " + repr(value).encode()


@dataclass
class Heard:
    """What visitors were told: whole answers, and the bodies of refusals by themselves."""

    answers: list[bytes] = field(default_factory=list)
    refusals: list[bytes] = field(default_factory=list)

    def note(self, head: object, body: bytes) -> None:
        """Keep an answer."""
        self.answers.append(repr(head).encode() + body)
        if body.startswith(b'{"type":"urn:keyturn'):
            self.refusals.append(body)
