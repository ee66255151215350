"""What may be asked of POST /v1/responses: schema, limits, and what of it goes upstream.

The API keeps state at upstream's unless it is told not to. Here nothing is stored, nothing is
referred to, nothing runs in the background, and tools are functions of the visitor's own page.
"""

from typing import Annotated, Any, Final, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from completions.body import Tolerant, read_json, refuse, validate
from completions.items import (
    AnyItem,
    FunctionTools,
    InputMessage,
    NamedChoice,
    Reasoning,
    require_answered,
    require_known_items,
)
from completions.messages import NEEDS_TOOLS, Name, require_choice
from completions.plain import plain_messages
from completions.request import (
    ChatRequest,
    Draft,
    Effort,
    Off,
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

LEAST_OUTPUT: Final = 16  # tokens; OpenAI refuses to be asked for fewer
_LOCKED: Final = "the system prompt is the operator's here; leave it out."

Zero = Annotated[int, Field(ge=0, le=0)]
Include = Annotated[list[Literal["reasoning.encrypted_content"]], Field(max_length=1)]


class TextFormat(Tolerant):
    """How the answer is shaped."""

    type: Literal["text", "json_object", "json_schema"]
    name: Name | None = None
    description: str | None = None
    form: Annotated[dict[str, Any] | None, Field(alias="schema")] = None
    strict: bool | None = None

    @model_validator(mode="after")
    def _schema_with_its_type(self) -> Self:
        of_schemas = (self.name, self.form, self.description, self.strict)
        if self.type == "json_schema":
            fits = self.name is not None and self.form is not None
        else:
            fits = all(said is None for said in of_schemas)
        if not fits:
            raise ValueError("name and schema go with the type json_schema, and only with it")
        return self


class TextConfig(Tolerant):
    """The form of the answer, and how much of it."""

    format: TextFormat | None = None
    verbosity: Verbosity | None = None


class ReasoningConfig(Tolerant):
    """How hard a model thinks; a summary of it may be billed beside the output limit."""

    effort: Effort | None = None


def _given(value: Any) -> str:
    return "str" if isinstance(value, str) else "[items]"


def _form(choice: Any) -> str:
    return "[named]" if isinstance(choice, dict | NamedChoice) else "[word]"


Input = Annotated[
    Annotated[str, Tag("str")]
    | Annotated[list[AnyItem], Field(min_length=1, fail_fast=True), Tag("[items]")],
    Discriminator(_given),
]
Choice = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag("[word]")]
    | Annotated[NamedChoice, Tag("[named]")],
    Discriminator(_form),
]


class ResponsesBody(Tolerant):
    """The body of POST /v1/responses: OpenAI's, without what costs or stores more.

    Tools, calls and their outputs need ALLOW_TOOLS=on at the server; tools are functions only.
    """

    model: str | None = None
    input: Input
    instructions: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_output_tokens: Annotated[int, Field(ge=LEAST_OUTPUT)] | None = None
    temperature: Temperature | None = None
    top_p: TopP | None = None
    text: TextConfig | None = None
    reasoning: ReasoningConfig | None = None
    tools: Annotated[FunctionTools | None, Field(description=NEEDS_TOOLS)] = None
    tool_choice: Annotated[Choice | None, Field(description=NEEDS_TOOLS)] = None
    parallel_tool_calls: Annotated[bool | None, Field(description=NEEDS_TOOLS)] = None
    store: Off | None = None
    background: Off | None = None
    truncation: Literal["disabled"] | None = None
    service_tier: Literal["auto"] | None = None
    top_logprobs: Zero | None = None
    include: Include | None = None
    user: Any = None
    metadata: Any = None


_FORWARDED: Final = {
    *("instructions", "temperature", "top_p", "text", "reasoning"),
    *("tools", "tool_choice", "parallel_tool_calls"),
}


def parse_responses(
    raw: bytes, policy: Policy, *, safety_identifier: str | None = None
) -> ChatRequest:
    """The request that a body makes; raises `InvalidRequest` naming field, limit and count."""
    value = read_json(raw)
    if items := plain_messages(value, "input", policy):
        draft = _draft(value.get("model"), items, value.get("stream"), policy)
    else:
        draft = _read(value, policy)
    return priced(raw, draft, policy, safety_identifier)


def _read(value: Any, policy: Policy) -> Draft:
    require_few(value, "input", policy)
    require_known_items(value, tools=policy.allow_tools)
    body = validate(ResponsesBody, value)
    require_model(body.model, policy)
    _require_input(body, policy)
    names = [tool.name for tool in body.tools or ()]
    require_choice(names, body.tool_choice, body.parallel_tool_calls, field="name")
    items: list[dict[str, Any]] = [{"role": "user", "content": body.input}]
    if not isinstance(body.input, str):
        items = [item.upstream() for item in body.input if type(item) is not Reasoning]
    draft = _draft(body.model, items, body.stream, policy)
    draft.settings = forwarded(body, _FORWARDED)
    draft.rewritten = _rewritten(draft.settings, items)
    draft.most = (body.max_output_tokens,)
    return draft


def _require_input(body: ResponsesBody, policy: Policy) -> None:
    if body.instructions is not None:
        if (length := len(body.instructions)) > policy.max_message_chars:
            refuse_long(length, "instructions", policy)
        if policy.system_prompt:
            refuse(f"instructions: {_LOCKED}", param="instructions")
    if isinstance(body.input, str):
        if (length := len(body.input)) > policy.max_message_chars:
            refuse_long(length, "input", policy)
        return
    for index, item in enumerate(body.input):
        if (length := item.characters) > policy.max_message_chars:
            refuse_long(length, f"input.{index}", policy)
        if policy.system_prompt and type(item) is InputMessage and item.role != "user":
            refuse(f"input.{index}.role: {_LOCKED}", param=f"input.{index}.role")
    if all(type(item) is Reasoning for item in body.input):
        refuse("input has nothing but reasoning; it needs a message too.", param="input")
    require_answered(body.input)


def _draft(
    model: str | None, items: list[dict[str, Any]], stream: bool | None, policy: Policy
) -> Draft:
    """What goes upstream. A locked prompt is an item: an answer repeats its instructions."""
    if policy.system_prompt:
        items = [{"role": "system", "content": policy.system_prompt}, *items]
    model = model or policy.default_model
    return Draft(
        api="responses",
        said={"model": model, "input": items, "stream": bool(stream), "store": False},
        ruled={},
        messages=len(items) + 1,  # the instructions
        keep_usage=True,
    )


def _rewritten(settings: dict[str, Any], items: list[dict[str, Any]]) -> list[Any]:
    """The schema, the tools and the calls."""
    form = settings.get("text", {}).get("format", {})
    said: list[Any] = [form] if "schema" in form else []
    calls = [item for item in items if item.get("type") == "function_call"]
    return [*said, *settings.get("tools", []), *calls]
