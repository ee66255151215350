"""What the demo upstream understands of a request, and what it says. Pure.

The law: a token is a piece of at most eight characters, so that a text never has more tokens
than bytes; one piece is one streamed chunk. Bad input raises BadRequest, never anything else.
"""

import re
from dataclasses import dataclass
from typing import Any

QUOTED_WORDS = 8
QUOTED_CHARS = 60
TOKENS_PER_MESSAGE = 4
CACHE_FROM = 1024
CACHE_STEP = 128

PIECE = re.compile(r"\s*\S{1,8}|\s+")
ROLES = ("developer", "system", "user", "assistant", "tool")
TEXT_PARTS = ("text", "input_text", "output_text")


class BadRequest(Exception):
    """What OpenAI would refuse with 400; `param` names the field."""

    def __init__(self, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        self.code = code


@dataclass(frozen=True)
class Asked:
    """A request, understood."""

    model: str
    turns: list[tuple[str, str]]
    limit: int | None
    stream: bool
    include_usage: bool = False


@dataclass(frozen=True)
class Answer:
    """The pieces of the reply that fit, whether it was cut, and what it cost in tokens."""

    pieces: list[str]
    cut: bool
    prompt_tokens: int
    cached_tokens: int

    @property
    def text(self) -> str:
        """The whole reply."""
        return "".join(self.pieces)


def answer(asked: Asked) -> Answer:
    """The reply to a request, cut at its limit."""
    whole = PIECE.findall(reply(asked.turns))
    pieces = whole if asked.limit is None else whole[: asked.limit]
    prompt = tokens(asked.turns)
    seen = tokens(asked.turns[:-1]) if prompt >= CACHE_FROM else 0
    return Answer(pieces, len(pieces) < len(whole), prompt, seen // CACHE_STEP * CACHE_STEP)


def tokens(turns: list[tuple[str, str]]) -> int:
    """A plausible count of prompt tokens."""
    return sum(len(PIECE.findall(text)) + TOKENS_PER_MESSAGE for _, text in turns)


def reply(turns: list[tuple[str, str]]) -> str:
    """A short answer about the visitor's last message."""
    said = [text for role, text in turns if role == "user"]
    quoted = first_words(said[-1]) if said else ""
    opening = f"You wrote: “{quoted}”." if quoted else "You wrote nothing that I can quote."
    if quoted.endswith("?"):
        opening = f"You ask: “{quoted}” A good question, and I wish I knew."
    count = len(said)
    place = "the first message" if count == 1 else f"message number {count}"
    return (
        f"{opening} That is {place} of our conversation. I am Keyturn's demo upstream: a small "
        "program on this machine that answers every message in this way, so that you can see the "
        "stream work. To get real answers, set OPENAI_API_KEY and start the server again."
    )


def first_words(text: str) -> str:
    """The beginning of a text on one line, with "…" where more follows."""
    words = text.split()
    short = " ".join(words[:QUOTED_WORDS])[:QUOTED_CHARS]
    return short if short == " ".join(words) else f"{short}…"


def read_chat(body: Any) -> Asked:
    """Understand the body of POST /v1/chat/completions; raises BadRequest."""
    model, stream = read_common(body)
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise BadRequest("'messages' must be a non-empty array.", "messages")
    options = body.get("stream_options")
    if options is not None and not (stream and isinstance(options, dict)):
        raise BadRequest(
            "'stream_options' is an object, only allowed when 'stream' is enabled.",
            "stream_options",
        )
    if body.get("max_tokens") is not None and body.get("max_completion_tokens") is not None:
        raise BadRequest(
            "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported.",
            "max_tokens",
        )
    limits = [read_limit(body, name) for name in ("max_tokens", "max_completion_tokens")]
    return Asked(
        model=model,
        turns=[read_turn(each, "messages", at) for at, each in enumerate(messages)],
        limit=next((each for each in limits if each is not None), None),
        stream=stream,
        include_usage=bool(options and options.get("include_usage")),
    )


def read_responses(body: Any) -> Asked:
    """Understand the body of POST /v1/responses; raises BadRequest."""
    model, stream = read_common(body)
    given = body.get("input")
    if isinstance(given, str):
        turns = [("user", given)]
    elif isinstance(given, list) and given:
        turns = [read_item(each, at) for at, each in enumerate(given)]
    else:
        raise BadRequest("'input' must be a string or a non-empty array.", "input")
    instructions = body.get("instructions")
    if instructions is not None and not isinstance(instructions, str):
        raise BadRequest("'instructions' must be a string.", "instructions")
    if instructions:
        turns.insert(0, ("system", instructions))
    return Asked(model, turns, read_limit(body, "max_output_tokens"), stream)


def read_common(body: Any) -> tuple[str, bool]:
    """The model and whether to stream."""
    if not isinstance(body, dict):
        raise BadRequest("The body must be a JSON object.")
    model, stream = body.get("model"), body.get("stream")
    if not isinstance(model, str) or not model.strip():
        raise BadRequest("You must provide a model parameter.", "model")
    if stream is not None and not isinstance(stream, bool):
        raise BadRequest("'stream' must be a boolean.", "stream")
    return model, bool(stream)


def read_limit(body: dict[str, Any], name: str) -> int | None:
    """An output limit, None if it is not set."""
    limit = body.get(name)
    if limit is None:
        return None
    if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
        raise BadRequest(f"'{name}' must be an integer of at least 1.", name, "invalid_value")
    return limit


def read_item(item: Any, at: int) -> tuple[str, str]:
    """Role and text of one item of the input: a message, a call or what it gave."""
    kind = item.get("type") if isinstance(item, dict) else None
    if kind == "function_call":
        return "assistant", read_text(item.get("arguments"), f"input[{at}].arguments")
    if kind == "function_call_output":
        return "tool", read_text(item.get("output"), f"input[{at}].output")
    return read_turn(item, "input", at)


def read_turn(message: Any, field: str, at: int) -> tuple[str, str]:
    """Role and text of one message."""
    role = message.get("role") if isinstance(message, dict) else None
    if role not in ROLES:
        raise BadRequest(f"'{field}[{at}].role' must be one of {', '.join(ROLES)}.", field)
    return role, read_text(message.get("content"), f"{field}[{at}].content")


def read_text(content: Any, field: str) -> str:
    """The text of a message's content: a string, an array of text parts, or null."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise BadRequest(f"'{field}' must be a string or an array of text parts.", field)
    texts = []
    for part in content:
        if not isinstance(part, dict) or part.get("type") not in TEXT_PARTS:
            raise BadRequest(f"'{field}' may hold text parts only.", field)
        if not isinstance(part.get("text"), str):
            raise BadRequest(f"'{field}' has a part without text.", field)
        texts.append(part["text"])
    return "\n".join(texts)
