"""What may be asked of the chat API: schema, limits, and what of it goes upstream.

The body sent upstream is built from an allow-list, never passed through. A parameter that is not
on it is refused by name; a neutral value of one that changes nothing is accepted and not sent.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, NoReturn, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from completions.prices import OutputLimitField
from completions.text import unsafe_character
from security.errors import InvalidRequest

_NAME: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-")
_NAME_LENGTH: Final = 64


@dataclass(frozen=True, slots=True)
class Policy:
    """What this server allows; `output_limit_fields` has one entry per allowed model."""

    models: tuple[str, ...]
    default_model: str
    max_output_tokens: int
    max_messages: int
    max_message_chars: int
    system_prompt: str | None
    output_limit_fields: dict[str, OutputLimitField]


class Strict(BaseModel):
    """Only what is declared, and of exactly its type."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class TextPart(Strict):
    """One part of a message's content."""

    type: Literal["text"]
    text: str


class Message(Strict):
    """One message of the conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")] | None = None
    refusal: None = None
    audio: None = None
    tool_calls: None = None
    function_call: None = None
    annotations: Annotated[list[Any], Field(max_length=0)] | None = None

    @property
    def texts(self) -> list[str]:
        """Every text of the message."""
        if isinstance(self.content, str):
            return [self.content]
        return [part.text for part in self.content]


class StreamOptions(Strict):
    """Whether the client wants the usage chunk."""

    include_usage: bool | None = None
    include_obfuscation: Literal[False] | None = None


class ResponseFormat(Strict):
    """How the answer is shaped."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: dict[str, Any] | None = None


Penalty = Annotated[float, Field(ge=-2, le=2)]


class ChatBody(Strict):
    """The body of POST /v1/chat/completions: OpenAI's, without what costs or stores more."""

    model: str | None = None
    messages: Annotated[list[Message], Field(min_length=1)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    stop: str | Annotated[list[str], Field(max_length=4)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    response_format: ResponseFormat | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None = None
    verbosity: Literal["low", "medium", "high"] | None = None
    n: Literal[1] | None = None
    store: Literal[False] | None = None
    logprobs: Literal[False] | None = None
    service_tier: Literal["auto"] | None = None
    user: str | None = None
    metadata: dict[str, str] | None = None


_FORWARDED: Final = (
    "temperature",
    "top_p",
    "presence_penalty",
    "frequency_penalty",
    "stop",
    "seed",
    "reasoning_effort",
    "verbosity",
)
_NEUTRAL_ONLY: Final = frozenset(
    {"n", "store", "logprobs", "service_tier", "audio", "tool_calls", "function_call", "refusal"}
)


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A request that may be asked: `raw` as it came, `upstream` as it will be sent."""

    raw: bytes
    upstream: bytes
    model: str
    stream: bool
    keep_usage: bool


def parse_chat(raw: bytes, policy: Policy) -> ChatRequest:
    """The request that a body makes; raises `InvalidRequest` naming field, limit and count."""
    body = validate(ChatBody, read_json(raw))
    _require_model(body.model, policy)
    _require_messages(body.messages, policy)
    model = body.model or policy.default_model
    return ChatRequest(
        raw=raw,
        upstream=_upstream_body(body, model, policy),
        model=model,
        stream=bool(body.stream),
        keep_usage=bool(body.stream_options and body.stream_options.include_usage),
    )


def _require_model(model: str | None, policy: Policy) -> None:
    if model is not None and model not in policy.models:
        refuse(f"model must be one of: {', '.join(policy.models)}.", param="model")


def _require_messages(messages: list[Message], policy: Policy) -> None:
    if len(messages) > policy.max_messages:
        refuse(
            f"messages has {len(messages)} entries; at most {policy.max_messages} are allowed.",
            param="messages",
        )
    for index, message in enumerate(messages):
        where = f"messages.{index}.content"
        length = sum(len(text) for text in message.texts)
        if length > policy.max_message_chars:
            refuse(
                f"{where} has {length} characters; at most {policy.max_message_chars} are allowed.",
                param=where,
            )
        if policy.system_prompt and message.role in ("system", "developer"):
            refuse("The system prompt is the operator's here.", param=f"messages.{index}.role")


def _upstream_body(body: ChatBody, model: str, policy: Policy) -> bytes:
    messages = [message.model_dump(exclude_none=True) for message in body.messages]
    for message in messages:
        message.pop("annotations", None)
    if policy.system_prompt:
        messages.insert(0, {"role": "system", "content": policy.system_prompt})
    sent: dict[str, Any] = {"model": model, "messages": messages, "stream": bool(body.stream)}
    if body.stream:
        sent["stream_options"] = {"include_usage": True}
    sent[policy.output_limit_fields[model]] = _output_limit(body, policy)
    sent |= {name: value for name in _FORWARDED if (value := getattr(body, name)) is not None}
    if body.response_format:
        sent["response_format"] = body.response_format.model_dump(exclude_none=True)
    return json.dumps(sent, ensure_ascii=False, separators=(",", ":")).encode()


def _output_limit(body: ChatBody, policy: Policy) -> int:
    asked = (body.max_tokens, body.max_completion_tokens, policy.max_output_tokens)
    return min(limit for limit in asked if limit is not None)


# Reading a body strictly, for both chat services.

Body = TypeVar("Body", bound=Strict)


def read_json(raw: bytes) -> Any:
    """The JSON value of a body; raises `InvalidRequest` malformed_json or for unsafe text."""
    value = load_json(raw)
    for text in texts_of(value):
        found = unsafe_character(text)
        if found:
            refuse(f"The body holds the character {found}, which is not allowed.")
    return value


def load_json(raw: bytes) -> Any:
    """The JSON value of a body, text unexamined: no duplicate names, NaN, Infinity or BOM."""
    try:
        return json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_constant=_no_constant,
            parse_float=_finite,
        )
    except (ValueError, RecursionError):
        raise InvalidRequest("malformed_json") from None


def validate(schema: type[Body], value: Any) -> Body:
    """The value as its schema; raises `InvalidRequest` for the first thing that is wrong."""
    try:
        return schema.model_validate(value)
    except ValidationError as invalid:
        _refuse_first(invalid)


def refuse(detail: str, *, param: str | None = None) -> NoReturn:
    """Refuse the body in a sentence that names field, limit and count."""
    raise InvalidRequest("invalid_request", detail, param=param)


def texts_of(value: Any) -> Iterator[str]:
    """Every string inside a JSON value, names of objects included."""
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, dict):
            stack.extend(item.keys())
            stack.extend(item.values())
        elif isinstance(item, list):
            stack.extend(item)


def _refuse_first(invalid: ValidationError) -> NoReturn:
    errors = invalid.errors(include_url=False, include_context=False, include_input=False)
    first = next(
        (error for error in errors if not _is_dull_branch(error["loc"], errors)), errors[0]
    )
    path = [str(part) for part in first["loc"] if not _is_union_tag(part)]
    name = ".".join(path)
    shown = name if 0 < len(name) <= _NAME_LENGTH and _NAME.issuperset(name) else None
    other_part = "content" in path and path[-1] == "type"
    if first["type"] == "extra_forbidden" or (path and path[-1] in _NEUTRAL_ONLY) or other_part:
        what = f"{shown} is not supported here." if shown else "A parameter is not supported here."
        raise InvalidRequest("unsupported_parameter", what, param=shown)
    refuse(f"{shown or 'The body'}: {first['msg']}.", param=shown)


def _is_dull_branch(loc: tuple[int | str, ...], errors: list[ErrorDetails]) -> bool:
    """Whether a list was sent where a string was also allowed: the list's own error says more."""
    deeper = (error["loc"] for error in errors if len(error["loc"]) > len(loc))
    return loc[-1:] == ("str",) and any(other[: len(loc) - 1] == loc[:-1] for other in deeper)


def _is_union_tag(part: int | str) -> bool:
    """Pydantic names the branch of a union, such as `list[TextPart]`; nobody sent that."""
    return isinstance(part, str) and (part in ("str", "int") or "[" in part)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("duplicate name")
    return found


def _no_constant(_: str) -> NoReturn:
    raise ValueError("not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError("too large")
    return number
