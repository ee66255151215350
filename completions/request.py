"""What may be asked of the chat APIs: this server's policy, and a request that keeps to it.

The body sent upstream is built from an allow-list, never passed through. A parameter that is not
on it is refused by name; a neutral value of one that changes nothing is accepted and not sent.
"""

import json
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal, NoReturn

from pydantic import AfterValidator, Field
from pydantic_core import to_json

from completions.body import Tolerant, refuse
from completions.prices import Price
from completions.text import most_gained
from security.budget import WorstCase

Api = Literal["chat/completions", "responses"]


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
Temperature = Annotated[float, Field(ge=0, le=2)]
TopP = Annotated[float, Field(ge=0, le=1)]
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
Verbosity = Literal["low", "medium", "high"]


class StreamOptions(Tolerant):
    """Whether the client wants the usage chunk; Responses always tell their usage."""

    include_usage: bool | None = None
    include_obfuscation: Off | None = None


_TOKENS_AROUND_TOOLS: Final = 1024
_JSON: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
_ASCII_JSON: Final = json.JSONEncoder(separators=(",", ":"))


@dataclass(slots=True)  # not frozen, though nobody changes one: to freeze each takes 2 us
class ChatRequest:
    """A request that may be asked: `raw` as it came, and what `upstream` will get.

    `api` is the address at upstream's, `limit_field` the name of the output limit there. `worst` is
    the most that it can cost at this `price`, at the output that it asks for.
    """

    raw: bytes = field(repr=False)
    unlimited: bytes = field(repr=False)
    api: Api
    limit_field: str
    model: str
    stream: bool
    keep_usage: bool
    price: Price
    worst: WorstCase

    def upstream(self, max_output: int) -> bytes:
        """The body to be sent, with a limit of so many output tokens."""
        return _limit(self.limit_field, max_output) + self.unlimited[1:]


@dataclass(slots=True)
class Draft:
    """What a body asks for, before it has a price.

    Without its output limit, `said` goes upstream, then `settings`, then `ruled`; only settings
    hold numbers. `rewritten` are the parts of them that upstream makes text of in its own way;
    `messages`, how many it frames; `most`, the output tokens asked for, of which each limit that is
    None says nothing.
    """

    api: Api
    said: dict[str, Any]
    ruled: dict[str, Any]
    messages: int
    keep_usage: bool
    settings: dict[str, Any] = field(default_factory=dict)
    rewritten: list[Any] = field(default_factory=list)
    most: tuple[int | None, ...] = ()


def require_model(model: str | None, policy: Policy) -> None:
    """Refuse a model that is not allowed; none is the default."""
    if model is not None and model not in policy.models:
        refuse(f"model must be one of: {', '.join(policy.models)}.", param="model")


def require_few(value: Any, name: str, policy: Policy) -> None:
    """Counted before they are looked at: thousands of messages cost a second of work."""
    messages = value.get(name) if isinstance(value, dict) else None
    if isinstance(messages, list) and len(messages) > policy.max_messages:
        refuse(
            f"{name} has {len(messages)} entries; at most {policy.max_messages} are allowed.",
            param=name,
        )


def refuse_long(length: int, name: str, policy: Policy, of: str = "") -> NoReturn:
    """Refuse a text that is longer than a message may be."""
    most = policy.max_message_chars
    refuse(f"{name} has {length} characters{of}; at most {most} are allowed.", param=name)


def forwarded(body: Tolerant, names: set[str]) -> dict[str, Any]:
    """What a body says under these names, as it goes upstream."""
    said = body.model_fields_set & names
    return body.model_dump(include=said, exclude_none=True, by_alias=True) if said else {}


def priced(raw: bytes, draft: Draft, policy: Policy, identifier: str | None) -> ChatRequest:
    """The request that a draft makes, with the most that it can cost.

    `identifier` tells upstream's visitors apart, where it is sent one: the policy says.
    """
    sent = {**draft.said, **draft.settings, **draft.ruled}
    if policy.identified and identifier is not None:
        sent["safety_identifier"] = identifier
    price = policy.prices[sent["model"]]
    most = min([limit for limit in (*draft.most, policy.max_output_tokens) if limit is not None])
    limit_field = "max_output_tokens" if draft.api == "responses" else price.output_limit_field
    # Alike, but for how they write a number. Only settings have any, and `to_json` is quicker.
    unlimited = _JSON.encode(sent).encode() if draft.settings else to_json(sent)
    size = len(_limit(limit_field, most)) + len(unlimited) - 1  # its brace is that of the limit
    size += _size_rewritten(draft.rewritten) + most_gained(unlimited)
    return ChatRequest(
        raw=raw,
        unlimited=unlimited,
        api=draft.api,
        limit_field=limit_field,
        model=sent["model"],
        stream=sent["stream"],
        keep_usage=draft.keep_usage,
        price=price,
        worst=price.worst_case(body_bytes=size, messages=draft.messages, max_output=most),
    )


def _limit(name: str, max_output: int) -> bytes:
    """How a body begins that says its output limit first."""
    return f'{{"{name}":{max_output},'.encode()


def _size_rewritten(said: list[Any]) -> int:
    """Tokens that a body may have over its bytes, where upstream writes JSON anew for the model.

    Tools, calls and schemas become text of upstream's making: indented, escaped, with words of its
    own around it. So they count once more, as ASCII: of what is indented each bracket, comma and
    colon may be two tokens, and no more.
    """
    return len(_ASCII_JSON.encode(said)) + _TOKENS_AROUND_TOOLS if said else 0
