"""What a visitor may put into the input of Responses: messages, calls of functions, their results.

The law: an item says all that it means. Nothing is stored anywhere, so a reference to an earlier
item has no meaning, and ids of items are not sent on; nor is what a model thought, which only the
server that stored it could read. Calls and results need ALLOW_TOOLS=on.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag

from completions.body import Tolerant, refuse, refuse_unsupported
from completions.messages import (
    MOST_TOOLS,
    NO_TOOLS,
    WORDS_OF_TOOLS,
    CallId,
    Name,
    Nothing,
    for_an_object,
)

_CALLS: Final = ("function_call", "function_call_output")
_KINDS: Final = ("message", *_CALLS, "reasoning")
_NOT_STORED: Final = (
    "nothing is stored here, so there is nothing to refer to; "
    "send the item itself, as SDKs do that are told store: false"
)
_ONLY: Final = f"only items of the types {', '.join(_KINDS)} are supported here"

ItemId = Annotated[str, Field(max_length=128)]
Status = Literal["in_progress", "completed", "incomplete"]


class InputText(Tolerant):
    """One part of what was said to the model."""

    type: Literal["input_text"]
    text: str


class OutputText(Tolerant):
    """One part of what the model said; without annotations and probabilities."""

    type: Literal["output_text"]
    text: str
    annotations: Nothing = None
    logprobs: Nothing = None


class Refusal(Tolerant):
    """What the model said instead of an answer."""

    type: Literal["refusal"]
    refusal: str


def _part(part: Any) -> str:
    refused = isinstance(part, dict) and part.get("type") == "refusal"
    return "[Refusal]" if refused else "[OutputText]"


InputTexts = Annotated[list[InputText], Field(min_length=1, fail_fast=True)]
SaidParts = Annotated[
    list[
        Annotated[
            Annotated[OutputText, Tag("[OutputText]")] | Annotated[Refusal, Tag("[Refusal]")],
            Discriminator(_part),
        ]
    ],
    Field(min_length=1, fail_fast=True),
]


class Item(Tolerant):
    """What every item may carry as it came from an answer; it is accepted and not sent on."""

    id: ItemId | None = None
    status: Status | None = None

    @property
    def characters(self) -> int:
        """The length of all that the model reads of it."""
        return _characters(self)

    def upstream(self) -> dict[str, Any]:
        """The item as it goes upstream."""
        return self.model_dump(exclude_none=True, exclude={"id": True, "status": True})


class InputMessage(Item):
    """What was said to the model."""

    type: Literal["message"] | None = None
    role: Literal["system", "developer", "user"]
    content: str | InputTexts

    def upstream(self) -> dict[str, Any]:
        """The message as it goes upstream."""
        return {**_typed(self.type), "role": self.role, "content": _sent(self.content)}


class SaidMessage(Item):
    """What the model said before."""

    type: Literal["message"] | None = None
    role: Literal["assistant"]
    content: str | SaidParts
    phase: Literal["commentary", "final_answer"] | None = None

    def upstream(self) -> dict[str, Any]:
        """The message as it goes upstream, without what says nothing."""
        said = {**_typed(self.type), "role": self.role, "content": _sent(self.content)}
        return said if self.phase is None else {**said, "phase": self.phase}


class Call(Item):
    """The model asked for a call of a function. Needs ALLOW_TOOLS=on at the server."""

    type: Literal["function_call"]
    call_id: CallId
    name: Name
    arguments: str


class CallOutput(Item):
    """What a call gave. Needs ALLOW_TOOLS=on at the server."""

    type: Literal["function_call_output"]
    call_id: CallId
    output: str | InputTexts


class Reasoning(Item):
    """What the model thought: accepted as it came from an answer, and not sent on."""

    type: Literal["reasoning"]
    summary: Any = None
    content: Any = None
    encrypted_content: Any = None


_BY_TYPE: Final = {
    "function_call": "[Call]",
    "function_call_output": "[CallOutput]",
    "reasoning": "[Reasoning]",
}


def _kind(item: Any) -> str:
    said = item if isinstance(item, dict) else {}
    in_message = "[SaidMessage]" if said.get("role") == "assistant" else "[InputMessage]"
    return _BY_TYPE.get(str(said.get("type")), in_message)


# Told apart by hand, so that a wrong one meets the errors of its own kind. A tag in brackets is
# never shown.
AnyItem = Annotated[
    Annotated[InputMessage, Tag("[InputMessage]")]
    | Annotated[SaidMessage, Tag("[SaidMessage]")]
    | Annotated[Call, Tag("[Call]")]
    | Annotated[CallOutput, Tag("[CallOutput]")]
    | Annotated[Reasoning, Tag("[Reasoning]")],
    Discriminator(_kind),
]


class FunctionTool(Tolerant):
    """A function that the model may call."""

    type: Literal["function"]
    name: Name
    description: str | None = None
    parameters: Annotated[dict[str, Any], AfterValidator(for_an_object)] | None = None
    strict: bool | None = None


class NamedChoice(Tolerant):
    """The one function to be called."""

    type: Literal["function"]
    name: Name

    @property
    def called(self) -> str:
        """Its name."""
        return self.name


def _none_of_none(tools: list[FunctionTool]) -> list[FunctionTool] | None:
    return tools or None


# An empty list is none: OpenAI's Agents SDK always sends one.
FunctionTools = Annotated[
    list[FunctionTool],
    Field(max_length=MOST_TOOLS, fail_fast=True),
    AfterValidator(_none_of_none),
]


def require_known_items(body: Any, *, tools: bool) -> None:
    """Refuse a body, not yet validated, for the first thing in it that cannot be had here."""
    said = body if isinstance(body, dict) else {}
    if not tools:
        for name in WORDS_OF_TOOLS:
            if said.get(name) not in (None, []):
                refuse_unsupported(name, NO_TOOLS)
    items = said.get("input")
    for index, item in enumerate(items if isinstance(items, list) else []):
        kind = item.get("type") if isinstance(item, dict) else None
        if kind is not None:
            _require_known(kind, f"input.{index}.type", tools=tools)


def _require_known(kind: Any, where: str, *, tools: bool) -> None:
    if kind == "item_reference":
        refuse_unsupported(where, _NOT_STORED)
    if isinstance(kind, str) and kind not in _KINDS:
        refuse_unsupported(where, _ONLY)
    if kind in _CALLS and not tools:
        refuse_unsupported(where, NO_TOOLS)


def require_answered(items: Sequence[Item]) -> None:
    """Refuse results of calls that were not made, and calls without a result."""
    waiting: dict[str, int] = {}
    for index, item in enumerate(items):
        if type(item) is Call:
            if item.call_id in waiting:
                where = f"input.{index}.call_id"
                refuse(f"{where}: each call needs an id of its own.", param=where)
            waiting[item.call_id] = index
        elif type(item) is CallOutput and waiting.pop(item.call_id, None) is None:
            where = f"input.{index}.call_id"
            refuse(
                f"{where} should be the id of a call before it that was not answered yet.",
                param=where,
            )
    for index in waiting.values():
        where = f"input.{index}"
        refuse(f"{where}: a call needs its function_call_output in the input.", param=where)


def _characters(item: Item) -> int:
    if type(item) is InputMessage or type(item) is SaidMessage:
        return _length(item.content)
    if type(item) is CallOutput:
        return _length(item.output)
    return len(item.arguments) if type(item) is Call else 0


Part = InputText | OutputText | Refusal


def _length(content: str | Sequence[Part]) -> int:
    return len(content) if isinstance(content, str) else sum(len(_said(part)) for part in content)


def _said(part: Part) -> str:
    return part.refusal if part.type == "refusal" else part.text


def _typed(kind: str | None) -> dict[str, str]:
    return {} if kind is None else {"type": kind}


def _sent(content: str | Sequence[Part]) -> str | list[dict[str, str]]:
    """Only what each part says."""
    if isinstance(content, str):
        return content
    return [
        {"type": part.type, "refusal" if part.type == "refusal" else "text": _said(part)}
        for part in content
    ]
