"""The JSON that OpenAI's two chat APIs answer. Pure.

The law: whatever a strict client of either API requires stands in every object and event, in
the order in which the real API sends it.
"""

from collections.abc import Iterator
from typing import Any

from embedded.demo_answers import Answer, Asked, BadRequest

Json = dict[str, Any]


def error(problem: BadRequest) -> Json:
    """OpenAI's error body."""
    return {
        "error": {
            "message": str(problem),
            "type": "invalid_request_error",
            "param": problem.param,
            "code": problem.code,
        }
    }


def model(name: str) -> Json:
    """One model of the list."""
    return {"id": name, "object": "model", "created": 1735689600, "owned_by": "keyturn-demo"}


def chat_completion(asked: Asked, said: Answer, name: str, now: int) -> Json:
    """The answer of POST /v1/chat/completions without a stream; `now` in seconds."""
    choice = {
        "index": 0,
        "message": {
            "role": "assistant",
            "content": said.text,
            "refusal": None,
            "annotations": [],
        },
        "logprobs": None,
        "finish_reason": finish_reason(said),
    }
    return {
        "id": name,
        "object": "chat.completion",
        "created": now,
        "model": asked.model,
        "choices": [choice],
        "usage": chat_usage(said),
        "service_tier": "default",
        "system_fingerprint": None,
    }


def chat_chunks(asked: Asked, said: Answer, name: str, now: int) -> Iterator[Json]:
    """The chunks of the same as a stream, without the [DONE] that follows."""
    head: Json = {
        "id": name,
        "object": "chat.completion.chunk",
        "created": now,
        "model": asked.model,
        "service_tier": "default",
        "system_fingerprint": None,
    }
    usage: Json = {"usage": None} if asked.include_usage else {}

    def chunk(delta: Json, finish: str | None = None) -> Json:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return head | {"choices": [choice]} | usage

    yield chunk({"role": "assistant", "content": "", "refusal": None})
    for piece in said.pieces:
        yield chunk({"content": piece})
    yield chunk({}, finish_reason(said))
    if asked.include_usage:
        yield head | {"choices": [], "usage": chat_usage(said)}


def finish_reason(said: Answer) -> str:
    """Why a chat completion ended."""
    return "length" if said.cut else "stop"


def chat_usage(said: Answer) -> Json:
    """What a chat completion cost."""
    return {
        "prompt_tokens": said.prompt_tokens,
        "completion_tokens": len(said.pieces),
        "total_tokens": said.prompt_tokens + len(said.pieces),
        "prompt_tokens_details": {"cached_tokens": said.cached_tokens, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def response(asked: Asked, said: Answer, name: str, now: int) -> Json:
    """The answer of POST /v1/responses without a stream; `now` in seconds."""
    status = "incomplete" if said.cut else "completed"
    return response_head(asked, name, now) | {
        "status": status,
        "completed_at": None if said.cut else now,
        "incomplete_details": {"reason": "max_output_tokens"} if said.cut else None,
        "output": [message(name, status, [text_part(said.text)])],
        "usage": response_usage(said),
    }


def response_events(asked: Asked, said: Answer, name: str, now: int) -> Iterator[Json]:
    """The events of the same as a stream; each is sent under the name that its `type` says."""
    begun = response_head(asked, name, now)
    ended = response(asked, said, name, now)
    item = {"output_index": 0}
    part = {"item_id": item_id(name), "output_index": 0, "content_index": 0}
    done = text_part(said.text)
    events: list[Json] = [
        {"type": "response.created", "response": begun},
        {"type": "response.in_progress", "response": begun},
        {"type": "response.output_item.added", "item": message(name, "in_progress", [])} | item,
        {"type": "response.content_part.added", "part": text_part("")} | part,
        *(
            {"type": "response.output_text.delta", "delta": piece, "logprobs": []} | part
            for piece in said.pieces
        ),
        {"type": "response.output_text.done", "text": said.text, "logprobs": []} | part,
        {"type": "response.content_part.done", "part": done} | part,
        {"type": "response.output_item.done", "item": ended["output"][0]} | item,
        {"type": f"response.{ended['status']}", "response": ended},
    ]
    for number, event in enumerate(events):
        yield event | {"sequence_number": number}


def response_head(asked: Asked, name: str, now: int) -> Json:
    """A response that has just begun."""
    return {
        "id": name,
        "object": "response",
        "created_at": now,
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": asked.limit,
        "metadata": {},
        "model": asked.model,
        "output": [],
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "service_tier": "default",
        "store": False,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": None,
    }


def message(name: str, status: str, content: list[Json]) -> Json:
    """The output item that holds the reply."""
    return {
        "id": item_id(name),
        "type": "message",
        "status": status,
        "role": "assistant",
        "content": content,
    }


def item_id(name: str) -> str:
    """The id of the one output item of response `name`."""
    return name.replace("resp_", "msg_", 1)


def text_part(text: str) -> Json:
    """A content part."""
    return {"type": "output_text", "annotations": [], "logprobs": [], "text": text}


def response_usage(said: Answer) -> Json:
    """What a response cost."""
    return {
        "input_tokens": said.prompt_tokens,
        "input_tokens_details": {"cached_tokens": said.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": len(said.pieces),
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": said.prompt_tokens + len(said.pieces),
    }
