"""A conversation and its tools: what a visitor may put into them, and whether it fits together.

The law: a tool is a function of the visitor's own page. What runs at upstream's (searches, code,
files) is none. And what upstream would refuse for its form is refused here, where it costs no
token.
"""

from collections.abc import Collection, Sequence
from typing import Annotated, Any, Final, Literal, Protocol

from pydantic import AfterValidator, Discriminator, Field, Tag

from completions.body import Strict, Tolerant, refuse, refuse_unsupported

MOST_TOOLS: Final = 128
NEEDS_TOOLS: Final = "Needs ALLOW_TOOLS=on at the server"

WORDS_OF_TOOLS: Final = ("tools", "tool_choice", "parallel_tool_calls")
NO_TOOLS: Final = (
    "tool calling is not supported here; the operator can turn it on with ALLOW_TOOLS=on"
)

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
CallId = Annotated[str, Field(min_length=1, max_length=128)]


class TextPart(Strict):
    """One part of a message's content."""

    type: Literal["text"]
    text: str


Nothing = Annotated[list[Any], Field(max_length=0)] | None
TextParts = Annotated[list[TextPart], Field(min_length=1, fail_fast=True)]


class FunctionCall(Strict):
    """Which function was called, and with what: JSON, or what the model took for it."""

    name: Name
    arguments: str


class ToolCall(Tolerant):
    """A call that the model asked for."""

    id: CallId
    type: Literal["function"]
    function: FunctionCall


class Message(Tolerant):
    """What was said; `annotations` and `tool_calls` may be empty lists, as SDKs send them."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | TextParts
    name: Name | None = None
    annotations: Nothing = None
    no_tool_calls: Annotated[Nothing, Field(alias="tool_calls")] = None

    @property
    def characters(self) -> int:
        """The length of all that the model reads of it."""
        return _length(self.content)

    def upstream(self) -> dict[str, Any]:
        """The message as it goes upstream."""
        content = self.content if isinstance(self.content, str) else _parts(self.content)
        said = {"role": self.role, "content": content}
        return said if self.name is None else {**said, "name": self.name}


class CallingMessage(Tolerant):
    """The assistant asks for calls. Needs ALLOW_TOOLS=on at the server."""

    role: Literal["assistant"]
    content: str | TextParts | None = None
    name: Name | None = None
    annotations: Nothing = None
    tool_calls: Annotated[
        list[ToolCall], Field(min_length=1, max_length=MOST_TOOLS, fail_fast=True)
    ]

    @property
    def characters(self) -> int:
        """The length of all that the model reads of it, the arguments of its calls included."""
        arguments = sum(len(call.function.arguments) for call in self.tool_calls)
        return _length(self.content) + arguments

    def upstream(self) -> dict[str, Any]:
        """The message as it goes upstream; many servers want its content, be it null."""
        said = self.model_dump(exclude_none=True, exclude={"annotations"})
        return {"role": self.role, "content": None, **said}


class ToolMessage(Tolerant):
    """What a call gave. Needs ALLOW_TOOLS=on at the server."""

    role: Literal["tool"]
    content: str | TextParts
    tool_call_id: CallId
    name: Name | None = None

    @property
    def characters(self) -> int:
        """The length of all that the model reads of it."""
        return _length(self.content)

    def upstream(self) -> dict[str, Any]:
        """The message as it goes upstream."""
        return self.model_dump(exclude_none=True)


def _length(content: str | list[TextPart] | None) -> int:
    if isinstance(content, str):
        return len(content)
    return sum(len(part.text) for part in content or ())


def _parts(content: list[TextPart]) -> list[dict[str, str]]:
    return [{"type": part.type, "text": part.text} for part in content]


def _kind(message: Any) -> str:
    if not isinstance(message, dict):
        return "[Message]"
    if message.get("role") == "tool":
        return "[ToolMessage]"
    return "[Message]" if message.get("tool_calls") in (None, []) else "[CallingMessage]"


# Told apart by hand, so that a wrong one meets the errors of its own kind. A tag in brackets is
# never shown.
AnyMessage = Annotated[
    Annotated[Message, Tag("[Message]")]
    | Annotated[CallingMessage, Tag("[CallingMessage]")]
    | Annotated[ToolMessage, Tag("[ToolMessage]")],
    Discriminator(_kind),
]


def for_an_object(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of what a function takes, which is an object."""
    if schema.get("type", "object") != "object":
        raise ValueError("should be a JSON Schema whose type is object")
    return schema


class Function(Tolerant):
    """What a function is called, does and takes."""

    name: Name
    description: str | None = None
    parameters: Annotated[dict[str, Any], AfterValidator(for_an_object)] | None = None
    strict: bool | None = None


class Tool(Tolerant):
    """A function that the model may call."""

    type: Literal["function"]
    function: Function


class NamedFunction(Strict):
    """One of the functions."""

    name: Name


class NamedTool(Strict):
    """The one tool to be called."""

    type: Literal["function"]
    function: NamedFunction

    @property
    def called(self) -> str:
        """Its name."""
        return self.function.name


class Named(Protocol):
    """A choice of one tool by its name."""

    @property
    def called(self) -> str: ...


def _form(choice: Any) -> str:
    return "[named]" if isinstance(choice, dict | NamedTool) else "[word]"


Tools = Annotated[list[Tool], Field(min_length=1, max_length=MOST_TOOLS, fail_fast=True)]
ToolChoice = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag("[word]")]
    | Annotated[NamedTool, Tag("[named]")],
    Discriminator(_form),
]


def require_no_tools(body: Any) -> None:
    """Refuse a body, not yet validated, for the first thing in it that has to do with tools."""
    said = body if isinstance(body, dict) else {}
    for name in WORDS_OF_TOOLS:
        if said.get(name) is not None:
            refuse_unsupported(name, NO_TOOLS)
    messages = said.get("messages")
    for index, message in enumerate(messages if isinstance(messages, list) else ()):
        if isinstance(message, dict) and (word := _word_of_tools(message)):
            refuse_unsupported(f"messages.{index}.{word}", NO_TOOLS)


def _word_of_tools(message: dict[str, Any]) -> str | None:
    if message.get("role") == "tool":
        return "role"
    if message.get("tool_calls") not in (None, []):
        return "tool_calls"
    return None if message.get("tool_call_id") is None else "tool_call_id"


def require_conversation(messages: Sequence[AnyMessage]) -> None:
    """Refuse calls that are not answered at once, and answers to calls that were not made.

    Told apart by `type`: `isinstance` of a model is slow where the answer is no.
    """
    caller, waiting = 0, set[str]()
    for index, message in enumerate(messages):
        if type(message) is ToolMessage:
            _take_result(message, waiting, f"messages.{index}.tool_call_id")
            continue
        _require_none_waiting(messages, caller, waiting)
        if type(message) is CallingMessage:
            caller, waiting = index, _calls_of(message, f"messages.{index}.tool_calls")
    _require_none_waiting(messages, caller, waiting)


def _take_result(message: ToolMessage, waiting: set[str], where: str) -> None:
    if message.tool_call_id not in waiting:
        refuse(
            f"{where} should be the id of a call that the assistant's message before it asked for "
            "and that was not answered yet.",
            param=where,
        )
    waiting.discard(message.tool_call_id)


def _calls_of(message: CallingMessage, where: str) -> set[str]:
    calls = {call.id for call in message.tool_calls}
    if len(calls) < len(message.tool_calls):
        refuse(f"{where}: each call needs an id of its own.", param=where)
    return calls


def _require_none_waiting(
    messages: Sequence[AnyMessage], caller: int, waiting: Collection[str]
) -> None:
    message = messages[caller]
    if waiting and isinstance(message, CallingMessage):
        where, count = f"messages.{caller}.tool_calls", len(message.tool_calls)
        refuse(
            f"{where}: {len(waiting)} of {count} calls not answered; each needs a message of the "
            "role tool, before any other message.",
            param=where,
        )


def require_choice(
    names: Sequence[str], choice: str | Named | None, parallel: bool | None, *, field: str
) -> None:
    """Refuse tools of one name, and a choice among tools that are not there.

    `field` is where in a tool, and in a choice of one, its name stands.
    """
    for index, name in enumerate(names):
        if name in names[:index]:
            where = f"tools.{index}.{field}"
            refuse(f"{where} is used by tools.{names.index(name)} too.", param=where)
    if not names:
        _require_silence("tool_choice", choice)
        _require_silence("parallel_tool_calls", parallel)
    if choice is not None and not isinstance(choice, str) and choice.called not in names:
        where = f"tool_choice.{field}"
        refuse(f"{where} should be the name of a function in tools.", param=where)


def _require_silence(name: str, value: Any) -> None:
    if value is not None:
        refuse(f"{name} goes with tools; send both, or neither.", param=name)
