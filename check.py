"""`python server.py check`: everything that stands in the way of serving, at once.

The law: it looks and changes nothing that a visitor could notice. Exit code 1 means that there is
a fault; a warning is for the operator to judge.
"""

import asyncio
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from dotenv import dotenv_values

from at_hand import BESIDE, store_at_hand
from check_live import about_models
from check_settings import (
    about_budget,
    about_names,
    about_network,
    about_prices,
    about_settings,
    least_for,
)
from completions.request import Policy
from embedded import EmbeddedError, Parts
from findings import Finding, as_lines, has_fault
from house import Keyturn, open_house
from money_report import usd
from patience import Patience
from provisions import HANDED_OVER, SHARED
from security.day import Day
from security.errors import Rejection, StoreUnavailable
from security.ledger import new_rid
from security.scripts import Visitor
from security.spending import OutOfSight, in_sight, read_day
from security.store import facts, why_no_write, why_not
from settings import Settings, SettingsError, read_settings

ENV_FILE: Final = Path(".env")
_PATIENCE: Final = Patience(silence=20)
_NOBODY: Final = Visitor("probe")
_MOST_SKEW: Final = 30  # seconds between Redis' clock and ours


def check(*, live: bool, env_file: Path = ENV_FILE) -> int:
    """Print all findings; 1 where one of them is a fault, else 0."""
    names = about_names(names_of(env_file))
    try:
        settings = read_settings(env_file)
    except SettingsError as error:
        found = [Finding("settings", "fault", reason) for reason in error.reasons]
        later = "nothing else can be looked at before these are mended"
        found += [*names, Finding("settings", "warning", later)]
    else:
        found = [*about_settings(settings), *names, *about_prices(settings)]
        found += [*about_budget(settings), *about_network(settings)]
        found += about_store(settings, live=live)
    print(as_lines(found))
    return int(has_fault(found))


def names_of(env_file: Path) -> set[str]:
    """Every name that is set, in the environment or in the file."""
    names = set(os.environ) - {HANDED_OVER, SHARED}
    with suppress(OSError, ValueError):  # the settings say it
        names |= set(dotenv_values(env_file, interpolate=False))
    return names


def about_store(settings: Settings, *, live: bool) -> list[Finding]:
    """The store that a server of these settings would use, or uses; and upstream if it is asked."""
    try:
        with store_at_hand(settings) as parts:
            return asyncio.run(look(settings, parts, live=live))
    except OutOfSight as reason:
        return [Finding("redis", "warning", f"{reason}: ask its /readyz")]
    except EmbeddedError as error:
        return [Finding("redis", "fault", str(error))]


async def look(settings: Settings, parts: Parts, *, live: bool) -> list[Finding]:
    """Open the house once, and see what is ready in it."""
    async with open_house(settings, parts, _PATIENCE) as keyturn:
        found = await about_redis(keyturn)
        if not has_fault(found):
            found.append(await about_today(keyturn))
        return found + (await about_models(keyturn) if live else [])


async def about_redis(keyturn: Keyturn) -> list[Finding]:
    """Whether it answers, admits, agrees on the time, and keeps what it acknowledged."""
    seen = await facts(keyturn.store, fenced=keyturn.ledger.is_fenced, clock=time.time)
    if seen is None:
        text = f"{await why_not(keyturn.store)}: look at REDIS_URL, and whether it runs"
        return [Finding("redis", "fault", text)]
    name = keyturn.parts.store_name or "REDIS_URL"
    if name in ("REDIS_URL", BESIDE):  # the name of one opened for this says its version
        name = f"{seen.version or 'a store'}, {name}"
    found = [Finding("redis", "ok", name), await _about_script(keyturn), about_clock(seen.ahead)]
    return found + _about_safety(keyturn, seen.doubts)


def _about_safety(keyturn: Keyturn, doubts: list[str]) -> list[Finding]:
    """Why it might forget: what keeps everybody out is a fault, what costs money a warning."""
    distrust = keyturn.ledger.distrust or ""
    faults = [doubt for doubt in doubts if doubt in distrust]
    found = [Finding("store", "fault", doubt) for doubt in faults or [distrust] if doubt]
    if keyturn.settings.openai_api_key:
        found += [Finding("store", "warning", doubt) for doubt in doubts if doubt not in faults]
    if not keyturn.settings.failover_fence:
        text = "FAILOVER_FENCE=off: a failover that loses writes may let a spent token in again"
        found.append(Finding("store", "warning", text))
    if found:
        return found
    text = "it may forget, as a demo may" if doubts else "nothing says that it might forget"
    return [Finding("store", "ok", text)]


async def about_today(keyturn: Keyturn) -> Finding:
    """Whether the day's money still lets anybody in."""
    settings = keyturn.settings
    try:
        async with in_sight(keyturn.store):
            day = await read_day(keyturn.store, tenant=settings.tenant, cap=settings.caps.day)
    except OutOfSight as reason:
        return Finding("today", "fault", str(reason))
    cap = "" if day.cap is None else f" of {usd(day.cap)}"
    text = f"{usd(day.spent)}{cap} USD spent, {usd(day.held)} held"
    if day.cap_set_in == "control":
        text += f" (the cap is set in Redis: HDEL {keyturn.ledger.prefix}control cap ends that)"
    if day.paused:
        text += f"; paused: HDEL {keyturn.ledger.prefix}control paused lets visitors in"
    elif awaited := _awaited(day, keyturn.policy):
        text += f"; nobody gets in before {awaited}"
    else:
        return Finding("today", "ok", text)
    return Finding("today", "warning", text)


def _awaited(day: Day, policy: Policy) -> str:
    """What the shortest turn of the cheapest model has to wait for, or nothing where it fits."""
    least = min(least_for(policy, model) for model in policy.models)
    if day.left is None or (day.left >= least and day.cap):
        return ""
    freed = "turns that run have ended, " if day.left + day.held >= least else ""
    return f"{freed}00:00 UTC, or a higher cap"


async def _about_script(keyturn: Keyturn) -> Finding:
    began = time.perf_counter()
    try:
        await keyturn.ledger.probe(new_rid(), _NOBODY)
    except (StoreUnavailable, Rejection) as refusal:
        return await _about_writes(keyturn, refused=isinstance(refusal, StoreUnavailable))
    took = (time.perf_counter() - began) * 1000
    return Finding("redis", "ok", f"the admission script runs and writes, in {took:.1f} ms")


async def _about_writes(keyturn: Keyturn, *, refused: bool) -> Finding:
    """What a plain write tells, where the script did not say that it wrote."""
    state = await why_no_write(keyturn.store, keyturn.ledger.prefix + "ready")
    if state != "ok":
        return Finding("redis", "fault", f"{state}: look at its log, its memory and its disk")
    if refused and not keyturn.ledger.distrust:
        text = "it takes writes, but not the admission script in time: look at its load"
        return Finding("redis", "fault", text)
    return Finding("redis", "ok", "it takes writes; no admission was tried")


def about_clock(ahead: float) -> Finding:
    """Whether Redis' clock, so many seconds ahead of ours, tells the same time."""
    text = f"its clock and ours are {abs(ahead):.3f} s apart"
    if abs(ahead) > _MOST_SKEW:
        return Finding("redis", "fault", f"{text}: set both by NTP")
    return Finding("redis", "ok", text)
