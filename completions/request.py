"""What may be asked of the chat API: schema, limits, and what of it goes upstream.

The body sent upstream is built from an allow-list, never passed through. A parameter that is not
on it is refused by name; a neutral value of one that changes nothing is accepted and not sent.
"""

import json
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    model_validator,
)

from completions.body import Strict, Tolerant, read_json, refuse, validate
from completions.prices import Price
from security.budget import WorstCase


@dataclass(frozen=True, slots=True)
class Policy:
    """What this server allows; `prices` has one entry per allowed model."""

    models: tuple[str, ...]
    default_model: str
    max_output_tokens: int
    max_messages: int
    max_message_chars: int
    system_prompt: str | None
    prices: dict[str, Price]


def _off(value: bool) -> bool:
    if value:
        raise ValueError("should be false")
    return value


# Not `Literal[False]` and `Literal[1]`, which take 0 for False, and True or 1.0 for 1.
Off = Annotated[bool, AfterValidator(_off)]
One = Annotated[int, Field(ge=1, le=1)]


class TextPart(Strict):
    """One part of a message's content."""

    type: Literal["text"]
    text: str


TextParts = Annotated[list[TextPart], Field(min_length=1, fail_fast=True)]


class Message(Tolerant):
    """One message of the conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | TextParts
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")] | None = None
    annotations: Annotated[list[Any], Field(max_length=0)] | None = None

    @property
    def texts(self) -> list[str]:
        """Every text of the message."""
        if isinstance(self.content, str):
            return [self.content]
        return [part.text for part in self.content]


class StreamOptions(Tolerant):
    """Whether the client wants the usage chunk."""

    include_usage: bool | None = None
    include_obfuscation: Off | None = None


class ResponseFormat(Tolerant):
    """How the answer is shaped."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _schema_with_its_type(self) -> Self:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError("json_schema goes with the type json_schema, and only with it")
        return self


Penalty = Annotated[float, Field(ge=-2, le=2)]


class ChatBody(Tolerant):
    """The body of POST /v1/chat/completions: OpenAI's, without what costs or stores more."""

    model: str | None = None
    messages: Annotated[list[Message], Field(min_length=1, fail_fast=True)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    stop: str | Annotated[list[str], Field(min_length=1, max_length=4)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    response_format: ResponseFormat | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None = None
    verbosity: Literal["low", "medium", "high"] | None = None
    n: One | None = None
    store: Off | None = None
    logprobs: Off | None = None
    service_tier: Literal["auto"] | None = None
    user: Any = None
    metadata: Any = None


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


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A request that may be asked: `raw` as it came, and what `upstream` will get.

    `worst` is the most it can cost at this `price`, at the output that it asks for.
    """

    raw: bytes = field(repr=False)
    unlimited: bytes = field(repr=False)
    model: str
    stream: bool
    keep_usage: bool
    price: Price
    worst: WorstCase

    def upstream(self, max_output: int) -> bytes:
        """The body to be sent, with a limit of so many output tokens."""
        return _limit(self.price, max_output) + self.unlimited[1:]


def parse_chat(raw: bytes, policy: Policy) -> ChatRequest:
    """The request that a body makes; raises `InvalidRequest` naming field, limit and count."""
    value = read_json(raw)
    _require_few_messages(value, policy)
    body = validate(ChatBody, value)
    _require_model(body.model, policy)
    _require_messages(body.messages, policy)
    return _chat_request(raw, body, policy)


def _chat_request(raw: bytes, body: ChatBody, policy: Policy) -> ChatRequest:
    model = body.model or policy.default_model
    price, most = policy.prices[model], _output_limit(body, policy)
    messages = _upstream_messages(body, policy)
    unlimited = _upstream_body(body, model, messages)
    size = len(_limit(price, most)) + len(unlimited)
    return ChatRequest(
        raw=raw,
        unlimited=unlimited,
        model=model,
        stream=bool(body.stream),
        keep_usage=bool(body.stream_options and body.stream_options.include_usage),
        price=price,
        worst=price.worst_case(body_bytes=size, messages=len(messages), max_output=most),
    )


def _limit(price: Price, max_output: int) -> bytes:
    """How a body begins that says its output limit first."""
    return f'{{"{price.output_limit_field}":{max_output},'.encode()


def _require_model(model: str | None, policy: Policy) -> None:
    if model is not None and model not in policy.models:
        refuse(f"model must be one of: {', '.join(policy.models)}.", param="model")


def _require_few_messages(value: Any, policy: Policy) -> None:
    """Counted before they are looked at: thousands of them cost a second of work."""
    messages = value.get("messages") if isinstance(value, dict) else None
    if isinstance(messages, list) and len(messages) > policy.max_messages:
        refuse(
            f"messages has {len(messages)} entries; at most {policy.max_messages} are allowed.",
            param="messages",
        )


def _require_messages(messages: list[Message], policy: Policy) -> None:
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


def _upstream_messages(body: ChatBody, policy: Policy) -> list[dict[str, Any]]:
    messages = [message.model_dump(exclude_none=True) for message in body.messages]
    for message in messages:
        message.pop("annotations", None)
    if policy.system_prompt:
        messages.insert(0, {"role": "system", "content": policy.system_prompt})
    return messages


def _upstream_body(body: ChatBody, model: str, messages: list[dict[str, Any]]) -> bytes:
    sent: dict[str, Any] = {"model": model, "messages": messages, "stream": bool(body.stream)}
    if body.stream:
        sent["stream_options"] = {"include_usage": True}
    sent |= {name: value for name in _FORWARDED if (value := getattr(body, name)) is not None}
    if body.response_format:
        sent["response_format"] = body.response_format.model_dump(exclude_none=True)
    return json.dumps(sent, ensure_ascii=False, separators=(",", ":")).encode()


def _output_limit(body: ChatBody, policy: Policy) -> int:
    asked = (body.max_tokens, body.max_completion_tokens, policy.max_output_tokens)
    return min(limit for limit in asked if limit is not None)
