"""What may be asked of POST /api/chat: the plain contract for visitors with their own key."""

import re
from dataclasses import dataclass
from typing import Annotated, Final, Literal

from pydantic import Field, SecretStr

from completions.request import Strict, load_json, refuse, validate
from completions.text import clean
from security.errors import Rejection

MAX_TURNS: Final = 50
MAX_CHARS: Final = 10_000

_KEY: Final = re.compile(r"sk-[\x21-\x7e]{1,509}")

Text = Annotated[str, Field(max_length=MAX_CHARS)]
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

    raw: bytes
    model: str
    messages: list[SentMessage]


def parse_own_key(raw: bytes, models: tuple[str, ...]) -> tuple[OwnKeyRequest, SecretStr]:
    """The request that a body makes, and the visitor's key.

    Texts are cleaned of characters that are no text. Raises `Rejection` invalid_request,
    unsupported_parameter, malformed_json or byok_key_malformed.
    """
    body = validate(OwnKeyBody, load_json(raw))
    user_message = clean(body.user_message)
    if not user_message.strip():
        refuse("user_message must not be blank.", param="user_message")
    model = body.model or models[0]
    if model not in models:
        refuse(f"model must be one of: {', '.join(models)}.", param="model")
    if not body.api_key.get_secret_value().startswith("sk-"):
        refuse("API key must start with sk-", param="api_key")
    require_key(body.api_key)
    history = [
        {"role": "user" if turn.role == "user" else "assistant", "content": clean(turn.content)}
        for turn in body.chat_history
    ]
    developer = clean(body.developer_message)
    messages = [{"role": "developer", "content": developer}] if developer.strip() else []
    messages += [*history, {"role": "user", "content": user_message}]
    return OwnKeyRequest(raw=raw, model=model, messages=messages), body.api_key


def require_key(key: SecretStr) -> None:
    """Refuse what cannot be an API key; raises `Rejection` byok_key_malformed."""
    if not _KEY.fullmatch(key.get_secret_value()):
        raise Rejection("byok_key_malformed")
