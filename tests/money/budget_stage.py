"""What the tests of budgets stand on: amounts as settings have them, and the header read back."""

import re
import time
from dataclasses import dataclass
from decimal import Decimal

from tests.stage import Answer

CAP = 20_000
LIMIT = 500_000  # the default
DAY = 86_400


def usd(micro: int) -> str:
    """An amount as settings have it."""
    return f"{Decimal(micro).scaleb(-6):f}"


@dataclass(frozen=True)
class Told:
    """Keyturn-Budget as it was read: µUSD, µUSD, seconds."""

    remaining: int
    limit: int
    reset: int


def told(answer: Answer) -> Told:
    """The header, which has one form."""
    found = re.fullmatch(
        r"remaining=(\d+), limit=(\d+), reset=(\d+)", answer.headers["Keyturn-Budget"]
    )
    assert found, answer.headers["Keyturn-Budget"]
    return Told(*map(int, found.groups()))


def until_midnight() -> int:
    """Seconds until the next UTC day begins."""
    return DAY - int(time.time()) % DAY
