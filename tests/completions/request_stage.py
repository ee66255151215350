"""Bodies, and a server's policy to read them by."""

import json
from dataclasses import replace
from typing import Any

import pytest

from completions.chat import parse_chat
from completions.prices import Price
from completions.request import ChatRequest, Policy
from security.errors import InvalidRequest

HELLO = [{"role": "user", "content": "hello"}]
POLICY = Policy(
    models=("new-model", "old-model"),
    default_model="new-model",
    max_output_tokens=1024,
    max_messages=5,
    max_message_chars=100,
    system_prompt=None,
    prices={
        "new-model": Price(400_000, 100_000, 1_600_000),
        "old-model": Price(500_000, 500_000, 1_500_000, "max_tokens"),
    },
)
LOCKED = replace(POLICY, system_prompt='Be brief. 🙂 "quoted" \\ \t')


def body(**said: Any) -> bytes:
    """The bytes of a body that says this; a greeting unless `messages` are given."""
    return json.dumps({"messages": HELLO, **said}).encode()


def asked(raw: bytes | None = None, policy: Policy = POLICY, **said: Any) -> ChatRequest:
    """The request that a body makes."""
    return parse_chat(body(**said) if raw is None else raw, policy)


def sent(raw: bytes | None = None, policy: Policy = POLICY, **said: Any) -> dict[str, Any]:
    """What goes upstream for it."""
    return upstream_body(asked(raw, policy, **said))


def upstream_body(request: ChatRequest) -> dict[str, Any]:
    """What goes upstream for a request whose output was not shortened."""
    found: dict[str, Any] = json.loads(request.upstream(request.worst.max_output))
    return found


def refusal(raw: bytes | None = None, policy: Policy = POLICY, **said: Any) -> InvalidRequest:
    """The rejection that it meets."""
    with pytest.raises(InvalidRequest) as refused:
        asked(raw, policy, **said)
    return refused.value
