"""What may be asked of POST /api/chat: the plain contract for visitors with their own key."""

import re
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, SecretStr
from pydantic_core import PydanticCustomError

from completions.body import Strict, load_json, refuse, validate
from completions.request import Policy
from completions.text import clean
from security.errors import Rejection

MAX_TURNS: Final = 50
MAX_CHARS: Final = 10_000

_KEY: Final = re.compile(r"sk-[\x21-\x7e]{1,509}")


def _cleaned(value: Any) -> Any:
    """Before validation: it would refuse lone surrogates instead of leaving them out."""
    if not isinstance(value, str):
        return value
    text = clean(value)
    if len(text) > MAX_CHARS:
        counts = {"length": len(text), "most": MAX_CHARS}
        raise PydanticCustomError(
            "too_long", "has {length} characters; at most {most} are allowed", counts
        )
    return text


Text = Annotated[str, Field(max_length=MAX_CHARS), BeforeValidator(_cleaned)]
SentMessage = dict[str, str]


class PastTurn(Strict):
    """One earlier message."""

    role: Literal["user", "ai"]
    content: Text


class OwnKeyBody(Strict):
    """The body of POST /api/chat."""

    developer_message: Text = ""
    user_message: Text
    chat_history: Annotated[list[PastTurn], Field(max_length=MAX_TURNS, default_factory=list)]
    model: str | None = None
    api_key: SecretStr


@dataclass(frozen=True, slots=True)
class OwnKeyRequest:
    """A request that may be asked: the messages in the order in which they go upstream."""

    model: str
    messages: list[SentMessage] = field(repr=False)


def parse_own_key(raw: bytes, policy: Policy) -> tuple[OwnKeyRequest, SecretStr]:
    """The request that a body makes, and the visitor's key.

    Texts are cleaned of characters that are no text. Raises `Rejection` invalid_request,
    unsupported_parameter, malformed_json or byok_key_malformed.
    """
    body = validate(OwnKeyBody, load_json(raw))
    if not body.user_message.strip():
        refuse("user_message must not be blank.", param="user_message")
    model = policy.default_model if body.model is None else body.model
    if model not in policy.models:
        refuse(f"model must be one of: {', '.join(policy.models)}.", param="model")
    if not body.api_key.get_secret_value().startswith("sk-"):
        refuse("API key must start with sk-", param="api_key")
    require_key(body.api_key)
    return OwnKeyRequest(model=model, messages=_messages(body)), body.api_key


def require_key(key: SecretStr) -> None:
    """Refuse what cannot be an API key; raises `Rejection` byok_key_malformed."""
    if not _KEY.fullmatch(key.get_secret_value()):
        raise Rejection("byok_key_malformed")


def _messages(body: OwnKeyBody) -> list[SentMessage]:
    history = [
        {"role": "user" if turn.role == "user" else "assistant", "content": turn.content}
        for turn in body.chat_history
    ]
    developer = {"role": "developer", "content": body.developer_message}
    first = [developer] if body.developer_message.strip() else []
    return [*first, *history, {"role": "user", "content": body.user_message}]
