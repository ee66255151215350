"""Tenants over the primaries of a cluster: whose share is the greatest. Pure and seeded.

All keys of a tenant are in one slot, so a tenant is never split. The slots are shared out evenly,
as a cluster does that nobody asked for more.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum
from random import Random
from statistics import quantiles
from typing import Final

from redis.crc import key_slot

SLOTS: Final = 16_384
NAME: Final = "abcdefghijklmnopqrstuvwxyz0123456789"


@dataclass(frozen=True, slots=True)
class Spread:
    """The share of all load on the busiest primary: of the usual draw, and of a bad one."""

    median: float
    bad: float  # one draw in twenty is worse
    biggest: float  # the share of the biggest tenant, which no primary can be below


def primary_of(tenant: str, primaries: int) -> int:
    """The primary that serves this tenant."""
    return key_slot(tenant.encode()) * primaries // SLOTS


def busiest(tenants: Sequence[str], sizes: Sequence[float], primaries: int) -> float:
    """The share of the load that the busiest primary has."""
    loads = [0.0] * primaries
    for tenant, size in zip(tenants, sizes, strict=True):
        loads[primary_of(tenant, primaries)] += size
    return max(loads) / fsum(sizes)


def sizes_of(tenants: int, skew: float) -> list[float]:
    """The biggest first; a `skew` of 0 is all the same, of 1 the n-th is an n-th of the first."""
    return [1 / number**skew for number in range(1, tenants + 1)]


def spread(tenants: int, primaries: int, skew: float, draws: int = 400, seed: int = 1) -> Spread:
    """What becomes of tenants with names that nobody chose for it."""
    rng, sizes = Random(seed), sizes_of(tenants, skew)
    found = [
        busiest(["".join(rng.choices(NAME, k=8)) for _ in sizes], sizes, primaries)
        for _ in range(draws)
    ]
    shares = quantiles(found, n=20, method="inclusive")
    return Spread(shares[9], shares[18], sizes[0] / fsum(sizes))


def moved(sizes: Sequence[float], primaries: int) -> float:
    """The same share where each slot was moved to the emptiest primary, the biggest first."""
    loads = [0.0] * primaries
    for size in sorted(sizes, reverse=True):
        loads[loads.index(min(loads))] += size
    return max(loads) / fsum(sizes)
