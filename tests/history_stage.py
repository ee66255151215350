"""A made-up day in the history, so that there is something to see: written as workers write it."""

import math
import random
import time

import redis

PREFIX = "keyturn:{main}:"
REASONS = {
    "rate_limited": 40,
    "token_reused": 3,
    "fingerprint_mismatch": 2,
    "budget_visitor": 4,
    "start_limited": 8,
    "timestamp_stale": 1,
    "unsupported_parameter": 1,
}
NAMES = ("GAu8-nGVFsMZCdwS4CD-xw", "5RxEyiRceuL6Ck6daB_FdA", "oM79TRtetxs2rmJHDUdB-A")


def fill_day(redis_url: str, now: float | None = None) -> None:
    """Turns, refusals, times, streams and money of the last 24 hours."""
    dice = random.Random(7)
    last = int((now or time.time()) // 60)
    spent, today = 0, last // 1440
    with redis.Redis.from_url(redis_url) as store:
        pipe = store.pipeline(transaction=False)
        for minute in range(last - 1440, last + 1):
            spent = 0 if minute % 1440 == 0 else spent
            rush = 1 + math.sin(minute / 1440 * math.tau) + dice.random() / 2
            turns = round(12 * rush)
            spent += turns * 25 * dice.randrange(5, 12)
            counts = _minute(turns, 60 < last - minute < 95, dice)
            counts |= {"spent": spent, "held": round(3000 * rush), "streams": round(3 * rush)}
            names = {f"{minute % 60:02d}:{name}": number for name, number in counts.items()}
            pipe.hset(f"{PREFIX}history:{minute // 60}", mapping=names)
        pipe.hset(f"{PREFIX}spend:{today}", mapping={"spent": spent, "held": 6200})
        for rank, name in enumerate(NAMES):
            amounts = {"spent": 210_000 // (rank + 1), "held": 2000 * (rank == 0)}
            pipe.hset(f"{PREFIX}spend:{today}:{name}", mapping=amounts)
        refused = {f"{code} {NAMES[at % 3]}": 9 * n for at, (code, n) in enumerate(REASONS.items())}
        refused["origin_forbidden -"] = 17
        pipe.zadd(f"{PREFIX}history:{last // 60}:refused", refused)
        pipe.execute()


def _minute(turns: int, is_attack: bool, dice: random.Random) -> dict[str, int]:
    counts = {"c.ok": turns, "cost": turns * 1500, "in": turns * 900, "out": turns * 400}
    for _ in range(turns):
        bucket = f"t.{min(17, max(3, round(dice.gauss(9 if is_attack else 7, 2))))}"
        counts[bucket] = counts.get(bucket, 0) + 1
    counts["c.gone"] = turns // 9
    counts["c.upstream_timeout"] = dice.randrange(3) if is_attack else 0
    for code, weight in REASONS.items():
        often = weight * (6 if is_attack else 1) * dice.random() / 4
        counts[f"c.{code}"] = round(often)
    return {name: number for name, number in counts.items() if number}
