"""`python server.py spend`: what was spent today, by whom, and what is left."""

import asyncio
import sys
from typing import Final

from at_hand import store_at_hand
from embedded import EmbeddedError, Parts
from money_report import as_json, as_table
from security.spending import OutOfSight, read_day, read_spenders, reading
from settings import Settings

MOST: Final = 10  # visitors shown
_PATIENCE: Final = 2.0  # seconds for one answer: an operator can wait longer than a visitor


def spend(settings: Settings, *, for_scripts: bool) -> int:
    """Print the day's money; 0, or 1 where it cannot be seen."""
    try:
        with store_at_hand(settings, only_books=True) as parts:
            print(asyncio.run(look(settings, parts, for_scripts=for_scripts)))
    except (OutOfSight, EmbeddedError) as reason:
        print(f"There is nothing to see: {reason}", file=sys.stderr)
        return 1
    return 0


async def look(settings: Settings, parts: Parts, *, for_scripts: bool) -> str:
    """The report of this moment; raises `OutOfSight`."""
    given = settings.redis_url.get_secret_value() if settings.redis_url else ""
    patience = max(_PATIENCE, settings.redis_timeout_ms / 1000)
    caps, tenant = settings.caps, settings.tenant
    async with reading(parts.redis_url or given, tenant=tenant, patience=patience) as store:
        day = await read_day(store, tenant=tenant, cap=caps.day)
        spenders, visitors = await read_spenders(store, tenant=tenant, day=day.number, most=MOST)
    report = as_json if for_scripts else as_table
    return report(day, spenders, visitors, caps.visitor)
