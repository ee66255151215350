"""Whether a store may be trusted with money and tokens.

The law: nobody is admitted before the store was found to be safe once. One that cannot be reached
yet, or is mended while we run, is looked at again and again, and needs no restart of ours.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import redis.asyncio as redis

from security.ledger import Ledger
from security.store import unsafe

log = logging.getLogger("keyturn")

NOT_SEEN: Final = "it was not looked at yet"
_LOOKS_AGAIN: Final = 0.5
_OPENED_AT_START: Final = 8


@asynccontextmanager
async def looking_at(
    store: "redis.Redis", ledger: Ledger, *, must_persist: bool
) -> AsyncIterator[None]:
    """Look at the store before the block begins and, until it is found safe, while it lasts."""
    ledger.distrust = NOT_SEEN
    failure = await look(store, ledger, must_persist=must_persist)
    if failure:
        log.warning("the store cannot be reached yet (%s): nobody gets in", failure)
    watch = asyncio.create_task(_until_trusted(store, ledger, must_persist=must_persist))
    try:
        yield
    finally:
        watch.cancel()
        await asyncio.wait([watch])  # it may be connecting, and leaves nothing open


async def look(store: "redis.Redis", ledger: Ledger, *, must_persist: bool) -> str | None:
    """Trust the store if it is safe, and load the scripts; or name the failure to look."""
    before = ledger.distrust
    try:
        reasons = await unsafe(store, must_persist=must_persist, fenced=ledger.is_fenced)
        ledger.distrust = "; ".join(reasons) or None
        if not reasons:
            await ledger.load(connections=_OPENED_AT_START)
    except Exception as failure:
        return type(failure).__name__
    if reasons and ledger.distrust != before:
        log.error("the store might forget, and nobody gets in: %s", ledger.distrust)
    return None


async def _until_trusted(store: "redis.Redis", ledger: Ledger, *, must_persist: bool) -> None:
    while ledger.distrust:
        await asyncio.sleep(_LOOKS_AGAIN)
        await look(store, ledger, must_persist=must_persist)
        if not ledger.distrust:
            log.info("the store is there, and safe: visitors get in")
