"""What may be asked of the chat API: schema, limits, and what of it goes upstream.

The body sent upstream is built from an allow-list, never passed through. A parameter that is not
on it is refused by name; a neutral value of one that changes nothing is accepted and not sent.
"""

import json
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from completions.body import Tolerant, read_json, refuse, validate
from completions.messages import (
    NEEDS_TOOLS,
    AnyMessage,
    CallingMessage,
    Name,
    ToolChoice,
    Tools,
    require_choice,
    require_conversation,
    require_no_tools,
)
from completions.prices import Price
from completions.text import most_gained
from security.budget import WorstCase


@dataclass(frozen=True, slots=True)
class Policy:
    """What this server allows; `prices` has one entry per allowed model.

    `unstored` says that upstream keeps chats unless it is told not to; `identified`, that it wants
    to know which visitor asks.
    """

    models: tuple[str, ...]
    default_model: str
    max_output_tokens: int
    max_messages: int
    max_message_chars: int
    system_prompt: str | None
    prices: dict[str, Price]
    allow_tools: bool = False
    unstored: bool = False
    identified: bool = False


def _off(value: bool) -> bool:
    if value:
        raise ValueError("should be false")
    return value


# Not `Literal[False]` and `Literal[1]`, which take 0 for False, and True or 1.0 for 1.
Off = Annotated[bool, AfterValidator(_off)]
One = Annotated[int, Field(ge=1, le=1)]


class StreamOptions(Tolerant):
    """Whether the client wants the usage chunk."""

    include_usage: bool | None = None
    include_obfuscation: Off | None = None


class JsonSchema(Tolerant):
    """The form of an answer in JSON."""

    name: Name
    description: str | None = None
    form: Annotated[dict[str, Any] | None, Field(alias="schema")] = None
    strict: bool | None = None


class ResponseFormat(Tolerant):
    """How the answer is shaped."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _schema_with_its_type(self) -> Self:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError("json_schema goes with the type json_schema, and only with it")
        return self


Penalty = Annotated[float, Field(ge=-2, le=2)]


class ChatBody(Tolerant):
    """The body of POST /v1/chat/completions: OpenAI's, without what costs or stores more.

    Tools, tool calls and the role tool need ALLOW_TOOLS=on at the server; tools are functions only.
    """

    model: str | None = None
    messages: Annotated[list[AnyMessage], Field(min_length=1, fail_fast=True)]
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
    tools: Annotated[Tools | None, Field(description=NEEDS_TOOLS)] = None
    tool_choice: Annotated[ToolChoice | None, Field(description=NEEDS_TOOLS)] = None
    parallel_tool_calls: Annotated[bool | None, Field(description=NEEDS_TOOLS)] = None
    n: One | None = None
    store: Off | None = None
    logprobs: Off | None = None
    service_tier: Literal["auto"] | None = None
    user: Any = None
    metadata: Any = None


_FORWARDED: Final = {
    *("temperature", "top_p", "presence_penalty", "frequency_penalty", "stop", "seed"),
    *("response_format", "reasoning_effort", "verbosity"),
    *("tools", "tool_choice", "parallel_tool_calls"),
}
_TOKENS_AROUND_TOOLS: Final = 1024


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


def parse_chat(raw: bytes, policy: Policy, *, safety_identifier: str | None = None) -> ChatRequest:
    """The request that a body makes; raises `InvalidRequest` naming field, limit and count.

    `safety_identifier` tells upstream's visitors apart, where it is sent one: the policy says.
    """
    value = read_json(raw)
    _require_few_messages(value, policy)
    if not policy.allow_tools:
        require_no_tools(value)
    body = validate(ChatBody, value)
    _require_model(body.model, policy)
    _require_messages(body.messages, policy)
    require_choice(body.tools or (), body.tool_choice, body.parallel_tool_calls)
    identifier = safety_identifier if policy.identified else None
    return _chat_request(raw, body, policy, identifier)


def _chat_request(
    raw: bytes, body: ChatBody, policy: Policy, identifier: str | None
) -> ChatRequest:
    model = body.model or policy.default_model
    price, most = policy.prices[model], _output_limit(body, policy)
    messages = _upstream_messages(body, policy)
    sent = _upstream_body(body, model, messages)
    if policy.unstored:
        sent["store"] = False
    if identifier is not None:
        sent["safety_identifier"] = identifier
    unlimited = _json(sent, ascii_only=False)
    size = len(_limit(price, most)) + len(unlimited) - 1  # its brace is that of the limit
    size += _size_rewritten(sent) + most_gained(unlimited.decode())
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


def _require_messages(messages: list[AnyMessage], policy: Policy) -> None:
    for index, message in enumerate(messages):
        where = f"messages.{index}"
        _require_short(message, where, policy.max_message_chars)
        if policy.system_prompt and message.role in ("system", "developer"):
            refuse(
                f"{where}.role: the system prompt is the operator's here; "
                "leave out messages of the roles system and developer.",
                param=f"{where}.role",
            )
    require_conversation(messages)


def _require_short(message: AnyMessage, where: str, most: int) -> None:
    with_calls = isinstance(message, CallingMessage)
    name, of = (where, " (calls included)") if with_calls else (f"{where}.content", "")
    if (length := message.characters) > most:
        refuse(f"{name} has {length} characters{of}; at most {most} are allowed.", param=name)


def _upstream_messages(body: ChatBody, policy: Policy) -> list[dict[str, Any]]:
    messages = [message.upstream() for message in body.messages]
    if policy.system_prompt:
        messages.insert(0, {"role": "system", "content": policy.system_prompt})
    return messages


def _upstream_body(body: ChatBody, model: str, messages: list[dict[str, Any]]) -> dict[str, Any]:
    sent: dict[str, Any] = {"model": model, "messages": messages, "stream": bool(body.stream)}
    if body.stream:
        sent["stream_options"] = {"include_usage": True}
    return sent | body.model_dump(include=_FORWARDED, exclude_none=True, by_alias=True)


def _size_rewritten(sent: dict[str, Any]) -> int:
    """Tokens that a body may have over its bytes, where upstream writes JSON anew for the model.

    Tools, calls and schemas become text of upstream's making: indented, escaped, with words of its
    own around it. So they count once more, as ASCII: of what is indented each bracket, comma and
    colon may be two tokens, and no more.
    """
    said = [sent["response_format"]["json_schema"]] if _has_schema(sent) else []
    said += sent.get("tools", [])
    said += [call for message in sent["messages"] for call in message.get("tool_calls", ())]
    return len(_json(said, ascii_only=True)) + _TOKENS_AROUND_TOOLS if said else 0


def _has_schema(sent: dict[str, Any]) -> bool:
    return "json_schema" in sent.get("response_format", {})


def _json(value: Any, *, ascii_only: bool) -> bytes:
    return json.dumps(value, ensure_ascii=ascii_only, separators=(",", ":")).encode()


def _output_limit(body: ChatBody, policy: Policy) -> int:
    asked = (body.max_tokens, body.max_completion_tokens, policy.max_output_tokens)
    return min(limit for limit in asked if limit is not None)
