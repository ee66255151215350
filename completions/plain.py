"""The usual body: a model, whether to stream and tell the usage, and who said what in one text.

It is told by all that it may be, which takes a third of what reading it by the schema does. Any
other body is none of these, a wrong one too; and by the schema this one would mean the same.
"""

from typing import Any, Final

from completions.request import Policy

_VISITORS: Final = ("user", "assistant")
_ALL: Final = (*_VISITORS, "system", "developer")
_SETTINGS: Final = {"model", "stream", "stream_options"}


def plain_messages(value: Any, name: str, policy: Policy) -> list[dict[str, str]]:
    """The messages, by this name, of a usual body that this server allows; none of any other."""
    if not isinstance(value, dict) or not value.keys() <= {*_SETTINGS, name}:
        return []
    if not (value.get("stream_options") is None or asks_for_usage(value)):
        return []
    model, stream, messages = value.get("model"), value.get("stream"), value.get(name)
    if not (model is None or model in policy.models):
        return []
    if not (stream is None or isinstance(stream, bool)) or not isinstance(messages, list):
        return []
    if len(messages) > policy.max_messages:
        return []
    roles = _VISITORS if policy.system_prompt else _ALL
    most = policy.max_message_chars
    return messages if all(_is_plain(message, roles, most) for message in messages) else []


def asks_for_usage(value: dict[str, Any]) -> bool:
    """Whether its options of a stream are that the usage be told, and nothing else."""
    options = value.get("stream_options")
    if not isinstance(options, dict) or [*options] != ["include_usage"]:
        return False
    return options["include_usage"] is True


def _is_plain(message: Any, roles: tuple[str, ...], most: int) -> bool:
    """Whether it is a role and a text, in the order in which they go upstream."""
    if not isinstance(message, dict) or [*message] != ["role", "content"]:
        return False
    role, content = message.values()
    return role in roles and isinstance(content, str) and len(content) <= most
