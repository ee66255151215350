"""What may be asked of POST /v1/chat/completions: schema, limits, and what of it goes upstream."""

from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, model_validator

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
from completions.plain import asks_for_usage, plain_messages
from completions.request import (
    ChatRequest,
    Draft,
    Effort,
    Off,
    One,
    Policy,
    StreamOptions,
    Temperature,
    TopP,
    Verbosity,
    forwarded,
    priced,
    refuse_long,
    require_few,
    require_model,
)


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
    temperature: Temperature | None = None
    top_p: TopP | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    stop: str | Annotated[list[str], Field(min_length=1, max_length=4)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    response_format: ResponseFormat | None = None
    reasoning_effort: Effort | None = None
    verbosity: Verbosity | None = None
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


def parse_chat(raw: bytes, policy: Policy, *, safety_identifier: str | None = None) -> ChatRequest:
    """The request that a body makes; raises `InvalidRequest` naming field, limit and count."""
    value = read_json(raw)
    if messages := plain_messages(value, "messages", policy):
        draft = _draft(value.get("model"), messages, value.get("stream"), policy)
        draft.keep_usage = asks_for_usage(value)
    else:
        draft = _read(value, policy)
    return priced(raw, draft, policy, safety_identifier)


def _read(value: Any, policy: Policy) -> Draft:
    require_few(value, "messages", policy)
    if not policy.allow_tools:
        require_no_tools(value)
    body = validate(ChatBody, value)
    require_model(body.model, policy)
    _require_messages(body.messages, policy)
    names = [tool.function.name for tool in body.tools or ()]
    require_choice(names, body.tool_choice, body.parallel_tool_calls, field="function.name")
    messages = [message.upstream() for message in body.messages]
    draft = _draft(body.model, messages, body.stream, policy)
    draft.settings = forwarded(body, _FORWARDED)
    draft.rewritten = _rewritten(draft.settings, messages)
    draft.most = (body.max_tokens, body.max_completion_tokens)
    draft.keep_usage = bool(body.stream_options and body.stream_options.include_usage)
    return draft


def _require_messages(messages: list[AnyMessage], policy: Policy) -> None:
    for index, message in enumerate(messages):
        if (length := message.characters) > policy.max_message_chars:
            with_calls = type(message) is CallingMessage
            name, of = ("", " (calls included)") if with_calls else (".content", "")
            refuse_long(length, f"messages.{index}{name}", policy, of)
        if policy.system_prompt and message.role in ("system", "developer"):
            where = f"messages.{index}.role"
            refuse(
                f"{where}: the system prompt is the operator's here; "
                "leave out messages of the roles system and developer.",
                param=where,
            )
    require_conversation(messages)


def _draft(
    model: str | None, messages: list[dict[str, Any]], stream: bool | None, policy: Policy
) -> Draft:
    if policy.system_prompt:
        messages = [{"role": "system", "content": policy.system_prompt}, *messages]
    said = {"model": model or policy.default_model, "messages": messages, "stream": bool(stream)}
    if stream:
        said["stream_options"] = {"include_usage": True}
    return Draft(
        api="chat/completions",
        said=said,
        ruled={"store": False} if policy.unstored else {},
        messages=len(messages),
        keep_usage=False,
    )


def _rewritten(settings: dict[str, Any], messages: list[dict[str, Any]]) -> list[Any]:
    """The schema, the tools and the calls."""
    form = settings.get("response_format", {})
    said = [form["json_schema"]] if "json_schema" in form else []
    said += settings.get("tools", [])
    return said + [call for message in messages for call in message.get("tool_calls", ())]
