"""The bytes of Responses streams, each kind of answer in the events in which OpenAI sends it."""

import json
from typing import Any

USAGE = {
    "input_tokens": 9,
    "input_tokens_details": {"cached_tokens": 4},
    "output_tokens": 3,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 12,
}
ZERO = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}
DONE = b"data: [DONE]\n\n"


def said(kind: str, number: int | None = None, **fields: Any) -> dict[str, Any]:
    """What an event of this type says."""
    numbered = {} if number is None else {"sequence_number": number}
    return {"type": kind, **numbered, **fields}


def event(kind: str, number: int | None = None, **fields: Any) -> bytes:
    """An event as OpenAI writes it: its type twice, as its name and in its data."""
    data = json.dumps(said(kind, number, **fields), ensure_ascii=False)
    return f"event: {kind}\ndata: {data}\n\n".encode()


def numbered(*events: tuple[str, dict[str, Any]]) -> list[bytes]:
    """Events in a row, numbered from zero."""
    return [event(kind, number, **fields) for number, (kind, fields) in enumerate(events)]


def delta(text: Any, of: str = "output_text", number: int | None = None) -> bytes:
    """A piece of what the model writes."""
    return event(f"response.{of}.delta", number, output_index=0, delta=text)


def ended(how: str = "completed", number: int | None = None, usage: Any = USAGE) -> bytes:
    """The event that ends a response."""
    return event(f"response.{how}", number, response={"status": how, "usage": usage})


def response(status: str, **fields: Any) -> dict[str, Any]:
    """The response within an event."""
    return {"response": {"id": "resp_1", "status": status, "error": None, "usage": None, **fields}}


BEGUN = [
    ("response.created", response("in_progress")),
    ("response.in_progress", response("in_progress")),
]
PART = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
MESSAGE = {"id": "msg_1", "type": "message", "role": "assistant", "content": []}
CALL = {
    "id": "fc_1",
    "type": "function_call",
    "call_id": "call_77",
    "name": "look",
    "arguments": "",
}
THOUGHT = {"id": "rs_1", "type": "reasoning", "summary": []}
ARGUMENTS = '{"at":"🙂"}'


def texts(of: str, *pieces: str) -> list[tuple[str, dict[str, Any]]]:
    """The pieces of a text, and then all of it."""
    deltas = [(f"response.{of}.delta", {**PART, "delta": piece}) for piece in pieces]
    return [*deltas, (f"response.{of}.done", {**PART, "text": "".join(pieces)})]


def added(item: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """An item of the output begins."""
    return "response.output_item.added", {"output_index": 0, "item": item}


def over(item: dict[str, Any], **fields: Any) -> tuple[str, dict[str, Any]]:
    """An item of the output is whole."""
    return "response.output_item.done", {"output_index": 0, "item": {**item, **fields}}


COMPLETED = ("response.completed", response("completed", usage=USAGE))
CUT = {"incomplete_details": {"reason": "max_output_tokens"}, "usage": USAGE}

# Each whole stream with the deltas and the bytes of text that it holds.
STREAMS: dict[str, tuple[list[bytes], int, int]] = {
    "text": (
        numbered(
            *BEGUN,
            added(MESSAGE),
            ("response.content_part.added", {**PART, "part": {"type": "output_text", "text": ""}}),
            *texts("output_text", "Grüße", ", 👋"),
            ("response.content_part.done", {**PART, "part": {"text": "Grüße, 👋"}}),
            over(MESSAGE, content=[{"type": "output_text", "text": "Grüße, 👋"}]),
            COMPLETED,
        ),
        2,
        len("Grüße, 👋".encode()),
    ),
    "refusal": (
        numbered(*BEGUN, added(MESSAGE), *texts("refusal", "No", "."), over(MESSAGE), COMPLETED),
        2,
        3,
    ),
    "function call": (
        numbered(
            *BEGUN,
            added(CALL),
            *texts("function_call_arguments", ARGUMENTS[:4], ARGUMENTS[4:]),
            over(CALL, arguments=ARGUMENTS),
            COMPLETED,
        ),
        3,  # the name and its id are one
        len("call_77look") + len(ARGUMENTS.encode()),
    ),
    "reasoning text": (
        numbered(*BEGUN, added(THOUGHT), *texts("reasoning_text", "Hm"), over(THOUGHT), COMPLETED),
        1,
        2,
    ),
    "reasoning summary": (
        numbered(
            *BEGUN,
            added(THOUGHT),
            ("response.reasoning_summary_part.added", {"summary_index": 0, "part": {"text": ""}}),
            *texts("reasoning_summary_text", "He", "sitating"),
            over(THOUGHT, summary=[{"type": "summary_text", "text": "Hesitating"}]),
            added(MESSAGE),
            *texts("output_text", "Yes"),
            COMPLETED,
        ),
        1,  # the summary is no part of the output that is limited
        len("HesitatingYes"),
    ),
    "incomplete": (
        numbered(
            *BEGUN,
            added(MESSAGE),
            *texts("output_text", "Cut o"),
            ("response.incomplete", response("incomplete", **CUT)),
        ),
        1,
        5,
    ),
    "nothing": (numbered(*BEGUN, COMPLETED), 0, 0),
}

FLAT = event("error", 2, code="server_error", message="secret", param=None)
NESTED = event("error", 2, error={"type": "server_error", "code": "boom", "message": "secret"})
NOT_WELL = {"code": "server_error", "message": "secret"}
FAILED = event("response.failed", 2, **response("failed", error=NOT_WELL))
