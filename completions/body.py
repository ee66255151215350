"""Reading a JSON body strictly, for both chat services.

Nothing is taken for what it is not: no duplicate names, no NaN, no number for a switch. What is
wrong is said in a sentence that names field, limit and count, and never the value.
"""

import json
import math
import re
from typing import Any, Final, NoReturn, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import ErrorDetails

from completions.text import may_be_unsafe, unsafe_character
from security.errors import InvalidRequest

_NAME: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-")
_NAME_LENGTH: Final = 64
_MOST_LEVELS: Final = 64
_MOST_NAMES: Final = 1000  # of one object: each that is unknown costs a whole error
_NEUTRAL_ONLY: Final = frozenset(
    {
        *("n", "store", "logprobs", "service_tier", "include_obfuscation", "annotations"),
        *("background", "truncation", "top_logprobs", "include"),
    }
)
_ESCAPED: Final = re.compile(rb"\\[bfu]")  # may write a character that is unsafe
_ONE_TYPE: Final = re.compile(r"Input should be '(\w+)'")
_JSON_WORDS: Final = {
    "model_type": "an object",
    "dict_type": "an object",
    "list_type": "an array",
    "string_type": "a string",
    "bool_type": "true or false",
}


class Strict(BaseModel):
    """Only what is declared, and of exactly its type."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Tolerant(Strict):
    """The same, but null says nothing: as if the name were left out, whatever the name."""

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, said: Any) -> Any:
        if isinstance(said, dict) and None in said.values():
            return {name: value for name, value in said.items() if value is not None}
        return said


Body = TypeVar("Body", bound=Strict)


def read_json(raw: bytes) -> Any:
    """The JSON value of a body; raises `InvalidRequest` malformed_json or for unsafe text."""
    value = load_json(raw)
    if _is_harmless(raw):
        return value
    # All at once, for speed: a line feed joins no two texts into a flag or a pair of surrogates.
    if found := unsafe_character("\n".join(texts_of(value))):
        refuse(f"The body holds the character {found}, which is not allowed.")
    return value


def load_json(raw: bytes) -> Any:
    """The JSON value of a body, text unexamined: no duplicate names, NaN, Infinity or BOM.

    Raises `InvalidRequest` malformed_json, or invalid_request for an object of too many names.
    """
    try:
        return _JSON.decode(raw.decode("utf-8"))
    except UnicodeDecodeError:
        _refuse_text("is not UTF-8")
    except json.JSONDecodeError as broken:
        _refuse_text(f"is no JSON from line {broken.lineno}, column {broken.colno} on")
    except RecursionError:
        _refuse_text(f"is nested deeper than {_MOST_LEVELS} levels")
    except ValueError:
        _refuse_text("holds a number of too many digits")


def validate(schema: type[Body], value: Any) -> Body:
    """The value as its schema; raises `InvalidRequest` for the first thing that is wrong."""
    try:
        found: Body = schema.__pydantic_validator__.validate_python(value)
        return found
    except ValidationError as invalid:
        _refuse_first(invalid)


def refuse(detail: str, *, param: str | None = None) -> NoReturn:
    """Refuse the body in a sentence that names field, limit and count."""
    raise InvalidRequest("invalid_request", detail, param=param)


def refuse_unsupported(name: str | None, what: str = "") -> NoReturn:
    """Refuse a parameter that is not for here, by its name where it may be repeated."""
    detail = f"{name}: {what}." if what else f"{name or 'A parameter'} is not supported here."
    raise InvalidRequest("unsupported_parameter", detail, param=name)


def texts_of(value: Any) -> list[str]:
    """Every string inside a JSON value, names of objects included, from the outside in.

    Raises `InvalidRequest` for more levels than every part of Python can write again.
    """
    texts, level = list[str](), [value]
    for _ in range(_MOST_LEVELS + 1):
        inner = list[Any]()
        for item in level:
            if isinstance(item, str):
                texts.append(item)
            elif isinstance(item, dict):
                inner += (*item, *item.values())
            elif isinstance(item, list):
                inner += item
        if not inner:
            return texts
        level = inner
    refuse(f"The body is nested deeper than {_MOST_LEVELS} levels.")


def _is_harmless(raw: bytes) -> bool:
    """Whether the bytes of a JSON value show already that `read_json` has nothing to refuse.

    So few brackets cannot nest too deep. And where no escape writes a character by its number,
    texts hold what the bytes do: of ASCII, JSON itself forbids all that is unsafe but DEL.
    """
    if raw.count(b"[") + raw.count(b"{") > _MOST_LEVELS:
        return False
    if b"\\" in raw and _ESCAPED.search(raw):
        return False
    return not may_be_unsafe(raw)


def _refuse_first(invalid: ValidationError) -> NoReturn:
    errors = invalid.errors(include_url=False, include_context=False, include_input=False)
    first = next((error for error in errors if not _is_dull(error, errors)), errors[0])
    path = _path(first)
    shown = _shown(path)
    if first["type"] == "extra_forbidden":
        refuse_unsupported(shown)
    listed = path[:-1] if path[-1:] and path[-1].isdecimal() else path
    if listed and listed[-1] in _NEUTRAL_ONLY:
        refuse_unsupported(_shown(listed), "only its default is supported here")
    if path[-1:] == ["type"] and (only := _ONE_TYPE.fullmatch(first["msg"])):
        refuse_unsupported(shown, f"only the type {only[1]} is supported here")
    refuse(f"{shown or 'The body'}: {_wording(first)}.", param=shown)


def _shown(path: list[str]) -> str | None:
    """The name of a place in the body, where it is one that may be repeated."""
    name = ".".join(path)
    return name if 0 < len(name) <= _NAME_LENGTH and _NAME.issuperset(name) else None


def _is_dull(error: ErrorDetails, errors: list[ErrorDetails]) -> bool:
    """Whether a list was sent where a string was also allowed: the list's own error says more."""
    union = error["loc"][:-1]
    return error["loc"][-1:] == ("str",) and any(
        other["loc"][: len(union)] == union
        and (len(other["loc"]) > len(error["loc"]) or other["type"] in ("too_short", "too_long"))
        for other in errors
    )


def _path(error: ErrorDetails) -> list[str]:
    """Where the error is, without the names that pydantic gives to the branches of a union."""
    sent = error["loc"][-1:] if error["type"] == "extra_forbidden" else ()
    within = error["loc"][: len(error["loc"]) - len(sent)]
    return [str(part) for part in (*(p for p in within if not _is_union_tag(p)), *sent)]


def _is_union_tag(part: int | str) -> bool:
    return isinstance(part, str) and (part == "str" or "[" in part)


def _wording(error: ErrorDetails) -> str:
    if error["type"] in _JSON_WORDS:
        return f"Input should be {_JSON_WORDS[error['type']]}"
    return error["msg"].removeprefix("Value error, ").replace(" after validation", "")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) == len(pairs) <= _MOST_NAMES:
        return found
    if len(pairs) > _MOST_NAMES:
        refuse(f"An object has {len(pairs)} names; at most {_MOST_NAMES} are allowed.")
    _refuse_text("says a name twice in one object")


def _no_constant(_: str) -> NoReturn:
    _refuse_text("holds NaN or Infinity, which JSON does not know")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        _refuse_text("holds a number that is too large")
    return number


def _refuse_text(what: str) -> NoReturn:
    raise InvalidRequest("malformed_json", f"The body {what}.") from None


_JSON: Final = json.JSONDecoder(
    object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite
)
