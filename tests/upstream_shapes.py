"""How the scripted upstream writes: the events of Chat Completions, and those of Responses."""

import json
from typing import Any, Protocol


class Played(Protocol):
    """What a script says of an answer's end."""

    finish: bool
    done: bool


def chunk(delta: Any, finish: str | None = None, usage: Any = None) -> bytes:
    """One event of a chat stream."""
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    value = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    value |= {"choices": choices, "usage": usage}
    return b"data: " + json.dumps(value).encode() + b"\n\n"


class ChatShape:
    """Chat Completions."""

    def begin(self) -> bytes:
        """The event before the first word."""
        return chunk({"role": "assistant", "content": ""})

    def word(self, text: str) -> bytes:
        """One word."""
        return chunk({"content": text})

    def error(self) -> bytes:
        """A failure in the middle."""
        return b'data: {"error":{"message":"secret text","code":"boom"}}\n\n'

    def end(self, script: Played, text: str, whole: bool, usage: Any) -> bytes:
        """What follows the last word, as far as the script lets it."""
        events = [chunk({}, finish="stop" if whole else "length")] if script.finish else []
        events += [chunk(None, usage=usage)] if usage else []
        events += [b"data: [DONE]\n\n"] if script.done else []
        return b"".join(events)


class ResponsesShape:
    """Responses: one message with one text."""

    def __init__(self) -> None:
        self._number = -1

    def begin(self) -> bytes:
        """The events before the first word."""
        begun = {"response": response_of("", "in_progress", None)}
        added = {"output_index": 0, "item": message_of("", "in_progress") | {"content": []}}
        return b"".join(
            (
                self._event("response.created", **begun),
                self._event("response.in_progress", **begun),
                self._event("response.output_item.added", **added),
                self._event("response.content_part.added", **PART, part=part_of("")),
            )
        )

    def word(self, text: str) -> bytes:
        """One word."""
        return self._event("response.output_text.delta", **PART, delta=text, logprobs=[])

    def error(self) -> bytes:
        """A failure in the middle, as OpenAI's service sends it."""
        error = {"type": "server_error", "code": "boom", "message": "secret text", "param": None}
        return self._event("error", error=error)

    def end(self, script: Played, text: str, whole: bool, usage: Any) -> bytes:
        """What follows the last word, as far as the script lets it."""
        status = "completed" if whole else "incomplete"
        item = {"output_index": 0, "item": message_of(text, status)}
        events = [
            self._event("response.output_text.done", **PART, text=text, logprobs=[]),
            self._event("response.content_part.done", **PART, part=part_of(text)),
            self._event("response.output_item.done", **item),
        ]
        if script.finish:
            ended = response_of(text, status, usage)
            events.append(self._event(f"response.{status}", response=ended))
        return b"".join(events)

    def _event(self, kind: str, **said: Any) -> bytes:
        self._number += 1
        value = {"type": kind, "sequence_number": self._number, **said}
        return f"event: {kind}\ndata: {json.dumps(value)}\n\n".encode()


PART = {"item_id": "msg_1", "output_index": 0, "content_index": 0}


def part_of(text: str) -> Any:
    """The one part of the message."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def message_of(text: str, status: str) -> Any:
    """The one item of the output."""
    message = {"type": "message", "id": "msg_1", "status": status, "role": "assistant"}
    return message | {"content": [part_of(text)]}


def response_of(text: str, status: str, usage: Any) -> Any:
    """The response, whole or as it begins."""
    cut = {"reason": "max_output_tokens"} if status == "incomplete" else None
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "status": status,
        "error": None,
        "incomplete_details": cut,
        "instructions": None,
        "metadata": {},
        "model": "m",
        "output": [] if status == "in_progress" else [message_of(text, status)],
        "parallel_tool_calls": True,
        "store": False,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "usage": usage,
    }
