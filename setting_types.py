"""How a setting is written: rates, lists, switches, URLs."""

import re
from decimal import Decimal
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_settings import NoDecode

from security.budget import MICRO_PER_USD
from security.client_ip import Proxies
from security.scripts import Rate

HOW_TO_MAKE_ONE: Final = (
    "make one with: python3 -c 'import secrets; print(secrets.token_urlsafe(48))'"
)

_PERIODS: Final = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}
_RATE: Final = re.compile(r"([1-9][0-9]{0,8}) */ *(second|minute|hour|day)")
_DOLLARS: Final = re.compile(r"[0-9]{1,9}(\.[0-9]{1,6})?")
_ORIGIN: Final = re.compile(r"https?://([a-z0-9.-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")
_MOST_AT_ONCE: Final = 10
YEAR: Final = 31_536_000


def split(value: Any) -> Any:
    """A list written with commas."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def rate(value: Any) -> Any:
    """`N/period` as a GCRA: N at once, then one per period/N."""
    if not isinstance(value, str):
        return value
    said = _RATE.fullmatch(value.strip())
    if not said:
        raise ValueError("should be N/second, N/minute, N/hour or N/day with N from 1")
    count, period = int(said[1]), _PERIODS[said[2]]
    return Rate(burst=count, interval_us=-(-period * 1_000_000 // count))


def budget(value: Any) -> Any:
    """US dollars as whole µUSD, or `off`: None."""
    if not isinstance(value, str):
        return value
    if value.strip().lower() == "off":
        return None
    if not _DOLLARS.fullmatch(value.strip()):
        raise ValueError("should be US dollars such as 5.00, with up to six decimals, or off")
    return int(Decimal(value.strip()) * MICRO_PER_USD)


def switch(value: Any) -> Any:
    """`on` or `off`, and nothing that might be either."""
    if isinstance(value, str) and value.lower() in ("on", "off"):
        return value.lower() == "on"
    if isinstance(value, bool):
        return value
    raise ValueError("should be on or off")


def proxies(value: Any) -> Any:
    """Networks and the word `unix`."""
    return Proxies.parse(value) if isinstance(value, str) else value


def exact_origins(origins: tuple[str, ...]) -> tuple[str, ...]:
    """Origins as browsers send them."""
    if not all(_ORIGIN.fullmatch(origin) for origin in origins):
        raise ValueError(
            "should list exact origins such as https://chat.example.org, in lower case; "
            "'*', 'null' and paths are refused"
        )
    return origins


def any_or_exact_origins(origins: tuple[str, ...]) -> tuple[str, ...]:
    """The same, or `*`."""
    if not all(origin == "*" or _ORIGIN.fullmatch(origin) for origin in origins):
        raise ValueError("should be '*', or exact origins such as https://chat.example.org")
    return origins


def url(value: str) -> str:
    """Where an API is; the slash at its end says nothing."""
    if not re.fullmatch(r"https?://[^/\s@?#]+(/[^\s@?#]*)?", value):
        raise ValueError(
            "should be a URL such as https://api.openai.com/v1 without user, query and fragment"
        )
    return value.rstrip("/")


Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(split)]
Origins = Annotated[Words, AfterValidator(exact_origins)]
AnyOrigins = Annotated[Words, AfterValidator(any_or_exact_origins)]
RateLimit = Annotated[Rate, NoDecode, BeforeValidator(rate)]
MicroUsd = Annotated[int | None, NoDecode, BeforeValidator(budget)]
Switch = Annotated[bool, NoDecode, BeforeValidator(switch)]
TrustedProxies = Annotated[Proxies, NoDecode, BeforeValidator(proxies)]
Url = Annotated[str, BeforeValidator(url)]
Seconds = Annotated[int, Field(ge=1, le=YEAR)]
SecondsOfADay = Annotated[int, Field(ge=1, le=86_400)]
Count = Annotated[int, Field(ge=1)]


def start_burst(rate: Rate) -> Rate:
    """The start limit of an address: the same pace, but at most 10 new chains at once."""
    return Rate(burst=min(rate.burst, _MOST_AT_ONCE), interval_us=rate.interval_us)
