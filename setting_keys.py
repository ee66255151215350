"""How keys are written: in a setting, or in a file of their own as secrets are mounted.

The law: no message of ours repeats a key, or a part of one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, SecretStr
from pydantic_settings import NoDecode

from setting_types import HOW_TO_MAKE_ONE, split

KEYS: Final = ("openai_api_key", "api_secret_key", "identity_key")
SAMPLE_SECRETS: Final = ("changethis", "change-me", "changeme", "your-secret", "0123456789abcdef")
_SECRET_BYTES: Final = 32
_LARGEST_FILE: Final = 65_536


@dataclass(frozen=True, slots=True)
class _Unread:
    """Why a key could not be had from its file."""

    reason: str


def with_key_files(said: Any) -> Any:
    """What was said, with the keys that stand in files put where a setting would have them."""
    if not isinstance(said, Mapping):
        return said
    from_files = {
        name: _read(Path(said[f"{name}_file"]), f"{name}_file".upper(), beside=said.get(name))
        for name in KEYS
        if said.get(f"{name}_file") and said.get(name, "unset") not in ((), None)
    }
    return {**said, **from_files}


def _read(file: Path, name: str, *, beside: Any) -> "str | _Unread":
    if beside:
        return _Unread(f"is set, and {name} too; set one of the two")
    try:
        with file.open(encoding="utf-8") as opened:
            text = opened.read(_LARGEST_FILE)
    except (OSError, ValueError):
        return _Unread(f"stands in no readable text file in UTF-8 where {name} says")
    lines = (line.strip() for line in text.splitlines())
    written = ",".join(line for line in lines if line)
    return written or _Unread(f"is missing in the file that {name} names, which is empty")


def several(value: Any) -> Any:
    """Keys apart by commas."""
    if isinstance(value, _Unread):
        raise ValueError(value.reason)  # of the file, and not of its type
    if isinstance(value, str):
        value = split(value)
        if len(set(value)) < len(value):
            raise ValueError("names the same key twice")
        return tuple(SecretStr(part) for part in value)
    return () if value is None else value


def single(value: Any) -> Any:
    """A key, or none."""
    if isinstance(value, _Unread):
        raise ValueError(value.reason)
    return value


Keys = Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(several)]
Key = Annotated[SecretStr | None, BeforeValidator(single)]


def require_strong(key: SecretStr) -> None:
    """Refuse a secret that is short, or that somebody could guess."""
    text = key.get_secret_value()
    if len(text.encode()) < _SECRET_BYTES:
        raise ValueError(f"has a key shorter than {_SECRET_BYTES} bytes; {HOW_TO_MAKE_ONE}")
    if len(set(text)) < _SECRET_BYTES // 4 or any(word in text.lower() for word in SAMPLE_SECRETS):
        raise ValueError(f"has a key that can be guessed; {HOW_TO_MAKE_ONE}")
