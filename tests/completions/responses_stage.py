"""Bodies of Responses, and the policies of `request_stage` to read them by."""

import json
from typing import Any

import pytest

from completions.request import ChatRequest, Policy
from completions.responses import parse_responses
from security.errors import InvalidRequest
from tests.completions.request_stage import HELLO, POLICY, upstream_body


def body(**said: Any) -> bytes:
    """The bytes of a body that says this; a greeting unless `input` is given."""
    return json.dumps({"input": HELLO, **said}).encode()


def asked(raw: bytes | None = None, policy: Policy = POLICY, **said: Any) -> ChatRequest:
    """The request that a body makes."""
    return parse_responses(body(**said) if raw is None else raw, policy)


def sent(raw: bytes | None = None, policy: Policy = POLICY, **said: Any) -> dict[str, Any]:
    """What goes upstream for it."""
    return upstream_body(asked(raw, policy, **said))


def refusal(raw: bytes | None = None, policy: Policy = POLICY, **said: Any) -> InvalidRequest:
    """The rejection that it meets."""
    with pytest.raises(InvalidRequest) as refused:
        asked(raw, policy, **said)
    return refused.value


def tool(name: str = "f", **more: Any) -> dict[str, Any]:
    """A function tool."""
    return {"type": "function", "name": name, **more}


def call(id_: str = "c1", arguments: str = "{}", **more: Any) -> dict[str, Any]:
    """A call of a function."""
    return {"type": "function_call", "call_id": id_, "name": "f", "arguments": arguments, **more}


def result(id_: str = "c1", output: Any = "ok", **more: Any) -> dict[str, Any]:
    """What a call gave."""
    return {"type": "function_call_output", "call_id": id_, "output": output, **more}


def answered(*parts: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A message of the assistant's as it stands in an answer."""
    said = [*parts] or [{"type": "output_text", "text": "hi", "annotations": [], "logprobs": []}]
    return {
        **{"type": "message", "id": "msg_1", "role": "assistant", "status": "completed"},
        **{"content": said, **more},
    }


THOUGHT = {
    **{"type": "reasoning", "id": "rs_1", "status": "completed", "encrypted_content": "gAAA"},
    **{"summary": [{"type": "summary_text", "text": "Hm"}], "content": [{"text": "Hm"}]},
}
