"""Tools, calls and results, and a policy that allows them."""

from dataclasses import replace
from typing import Any

from tests.completions.request_stage import POLICY

TOOLS = replace(POLICY, allow_tools=True, max_messages=200)


def tool(name: str = "f", **more: Any) -> dict[str, Any]:
    """A function tool."""
    return {"type": "function", "function": {"name": name, **more}}


def call(id_: str = "c1", arguments: str = "{}", **more: Any) -> dict[str, Any]:
    """A call of a function."""
    called = {"name": "f", "arguments": arguments}
    return {"id": id_, "type": "function", "function": called, **more}


def calls(*made: dict[str, Any], **more: Any) -> dict[str, Any]:
    """The assistant's message that makes these calls."""
    return {"role": "assistant", "content": None, "tool_calls": [*made], **more}


def result(id_: str = "c1", content: Any = "ok", **more: Any) -> dict[str, Any]:
    """What a call gave."""
    return {"role": "tool", "tool_call_id": id_, "content": content, **more}


def as_tools(functions: list[Any]) -> list[Any]:
    """Each function as a tool."""
    return [{"type": "function", "function": function} for function in functions]
