"""The money again, in plain Python: what the scripts and the ledger must agree with.

It knows nothing of Redis. Beside what a store keeps, which may be lost, stands the truth, which
may not: what every payer spent and has held, whatever became of the store.
"""

from bisect import bisect_right
from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import count
from typing import TypeAlias

from security.budget import WorstCase, round_up

A_DAY = 86_400
ALL = ""
NO_CAP = 10**15

Payer: TypeAlias = tuple[int, str]  # a Unix day, and ALL, a visitor or a /48


@dataclass
class Purse:
    """What a payer spent and has held, in µUSD."""

    spent: int = 0
    held: int = 0

    @property
    def taken(self) -> int:
        """What nobody else can have."""
        return self.spent + self.held


@dataclass(frozen=True)
class Held:
    """A hold: what for, from whom, and the second in which its lease ends."""

    rid: str
    amount: int
    tokens: int
    day: int
    names: tuple[str, ...]
    ends: int

    @property
    def payers(self) -> list[Payer]:
        """All from whom it is taken."""
        return [(self.day, name) for name in (ALL, *self.names)]


@dataclass(frozen=True)
class Sight:
    """What was seen of a day; `life` tells counts apart that were lost and begun again."""

    life: int = 0
    spent: int = 0
    changes: int = 0


@dataclass
class Count:
    """What is kept of a day beside its purse; `before` is what its earlier lives spent."""

    life: int = 0
    changes: int = 0
    before: int = 0
    over: int = 0


@dataclass
class Kept:
    """What a store keeps; a backup is a copy of it."""

    purses: dict[Payer, Purse] = field(default_factory=dict)
    days: dict[int, Count] = field(default_factory=dict)
    holds: dict[str, Held] = field(default_factory=dict)
    charged: set[str] = field(default_factory=set)

    def taken(self, payer: Payer) -> int:
        """What is spent and held."""
        return self.purses.get(payer, Purse()).taken

    def sight(self, day: int) -> Sight:
        """What is told of a day."""
        known = self.days.get(day, Count())
        return Sight(known.life, self.purses.get((day, ALL), Purse()).spent, known.changes)

    def open(self, held: Held, new_life: int) -> None:
        """Set an amount aside; the first hold of a day begins its count."""
        for payer in held.payers:
            self.purses.setdefault(payer, Purse()).held += held.amount
        day = self.days.setdefault(held.day, Count())
        day.life = day.life or new_life
        day.changes += 1
        self.holds[held.rid] = held

    def close(self, rid: str, charge: int | None) -> Held | None:
        """Charge a hold if it is open, in full for None; none is charged twice."""
        held = self.holds.pop(rid, None)
        if held is None:
            return None
        assert rid not in self.charged
        self.charged.add(rid)
        for payer in held.payers:
            self.purses[payer].held -= held.amount
            self.purses[payer].spent += held.amount if charge is None else charge
        self.days[held.day].changes += 1
        self.days[held.day].over += charge is not None and charge > held.amount
        return held

    def charge_unheld(self, held: Held, charge: int) -> None:
        """Charge what was held in a store that lost the hold."""
        self.charged.add(held.rid)
        if charge:
            for payer in held.payers:
                self.purses.setdefault(payer, Purse()).spent += charge
            self.days.setdefault(held.day, Count()).changes += 1


@dataclass
class Worker:
    """What a worker remembers: the most it saw of each day, and the turns that are open here."""

    day: int = 0
    seen: dict[int, Sight] = field(default_factory=dict)
    holds: dict[str, Held] = field(default_factory=dict)

    def notice(self, day: int, told: Sight) -> None:
        """Remember the most of one life; the days before yesterday are forgotten."""
        known = self.seen.get(day, Sight())
        if known.life == told.life:
            most = max(known.spent, told.spent), max(known.changes, told.changes)
            told = Sight(known.life, *most)
        if not known.life or known.life == told.life:
            self.seen[day] = told
        self.seen = {each: sight for each, sight in self.seen.items() if each >= self.day - 1}

    def misses(self, day: int, kept: Kept) -> bool:
        """Whether a store does not know what this worker saw."""
        seen, told = self.seen.get(day, Sight()), kept.sight(day)
        less = told.spent < seen.spent or told.changes < seen.changes
        return bool(seen.life) and (told.life != seen.life or less)


def granted(worst: WorstCase, left: int) -> tuple[int, int] | None:
    """The amount to hold and the tokens it pays for, where so much is left."""

    def price(tokens: int) -> int:
        return worst.prompt + round_up(tokens * worst.output_price)

    if worst.total <= left:
        return worst.total, worst.max_output
    tokens = bisect_right(range(worst.max_output + 1), left, key=price) - 1
    if worst.output_price == 0 or tokens < min(worst.max_output, 256):
        return None
    return price(tokens), tokens


@dataclass
class Model:
    """Some workers, one store, and the caps of a day, of a visitor, and of a /48: four times it."""

    cap: int | None
    visitor_cap: int | None
    lease: int
    now: int
    workers: list[Worker]
    kept: Kept = field(default_factory=Kept)
    truth: Kept = field(default_factory=Kept)
    lost: bool = False
    excused: set[Payer] = field(default_factory=set)
    owing: set[tuple[int, int]] = field(default_factory=set)
    crashed: set[int] = field(default_factory=set)
    unsure: set[int] = field(default_factory=set)
    lives: "count[int]" = field(default_factory=lambda: count(1))

    @property
    def today(self) -> int:
        """The Unix day."""
        return self.now // A_DAY

    def admit(
        self, by: int, rid: str, names: tuple[str, ...], worst: WorstCase
    ) -> tuple[Held | None, str]:
        """The hold of an admitted turn, or none, and the code."""
        worker, day = self.workers[by], self.today
        worker.day = day
        self._call(by, day)
        found = self._decide(names, worst)
        held = None if isinstance(found, str) else Held(rid, *found, day, names, self._lease_end)
        if held:
            self._excuse(held.payers, of_loss=True)
            self.truth.open(held, 1)
            self.kept.open(held, next(self.lives))
            worker.holds[rid] = held
            self._close_expired()
        worker.notice(day, self.kept.sight(day))
        return held, found if isinstance(found, str) else "admitted"

    def settle(self, by: int, rid: str, charge: int) -> None:
        """End a turn with a charge."""
        worker = self.workers[by]
        held = worker.holds.get(rid)
        day = held.day if held else worker.day
        self._call(by, day)
        if held and rid not in self.kept.holds and rid not in self.kept.charged:
            self.kept.charge_unheld(held, charge)
            self._close_in_truth(rid, charge)
        self._close(rid, charge)
        worker.notice(day, self.kept.sight(day))
        worker.holds.pop(rid, None)

    def crash(self, by: int) -> None:
        """A worker ends with all that it remembers, and another one takes its place."""
        gone, self.workers[by] = self.workers[by], Worker()
        self.crashed |= {day for day, sight in gone.seen.items() if sight.life}
        self.unsure |= {day for each, day in self.owing if each == by}
        self.owing = {(each, day) for each, day in self.owing if each != by}

    def lose(self, backup: Kept) -> None:
        """The store has what it had at the time of a backup."""
        self.lost = True
        self.unsure |= self.crashed | {day for _, day in self.owing}
        self.kept = deepcopy(backup)
        for by, worker in enumerate(self.workers):
            self.owing |= {(by, day) for day, sight in worker.seen.items() if sight.life}
            self.unsure |= {day for day in self.kept.days if not worker.misses(day, self.kept)}

    def left(self, *names: str) -> int:
        """What all of these have left for today; a /48 is the one whose name begins with w."""
        least = NO_CAP
        for name in names:
            cap = self._cap_of(name)
            if cap is not None:
                least = min(least, cap - self.kept.taken((self.today, name)))
        return least

    def check(self) -> None:
        """No cap is exceeded but by what is excused, and no money is missed once all have called.

        Excused are a charge above its hold, and an admission by a store that did not know all.
        """
        assert self.lost or self.kept.purses == self.truth.purses
        for payer, purse in self.truth.purses.items():
            cap = self._cap_of(payer[1])
            assert cap is None or purse.taken <= cap or payer in self.excused
        for day in {self.today, self.today - 1} - self.unsure - {day for _, day in self.owing}:
            assert self.kept.taken((day, ALL)) >= self.truth.taken((day, ALL))

    @property
    def _lease_end(self) -> int:
        return self.now + self.lease

    def _cap_of(self, name: str) -> int | None:
        if name == ALL or self.visitor_cap is None:
            return self.cap if name == ALL else None
        return self.visitor_cap * (4 if name.startswith("w") else 1)

    def _decide(self, names: tuple[str, ...], worst: WorstCase) -> tuple[int, int] | str:
        if granted(worst, self.left(ALL)) is None:
            return "budget_exhausted"
        return granted(worst, self.left(ALL, *names)) or "budget_visitor"

    def _call(self, by: int, day: int) -> None:
        """Whoever calls a store that lost what they saw gives it back first."""
        worker = self.workers[by]
        self.owing.discard((by, day))
        if not worker.misses(day, self.kept):
            return
        seen, told = worker.seen[day], self.kept.sight(day)
        kept = self.kept.days.setdefault(day, Count())
        purse = self.kept.purses.setdefault((day, ALL), Purse())
        if told.life in (0, seen.life):
            kept.life = next(self.lives)
            purse.spent = kept.before = max(purse.spent, seen.spent)
        elif seen.spent > kept.before:
            purse.spent += seen.spent - kept.before
            kept.before = seen.spent
        kept.changes = max(kept.changes, seen.changes) + 1
        for rid, held in worker.holds.items():
            if held.day == day and rid not in self.kept.holds:
                again = Held(rid, held.amount, held.tokens, day, held.names, self._lease_end)
                self.kept.open(again, 0)
        worker.seen[day] = self.kept.sight(day)

    def _close(self, rid: str, charge: int | None) -> None:
        if self.kept.close(rid, charge) is not None:
            self._close_in_truth(rid, charge)

    def _close_in_truth(self, rid: str, charge: int | None) -> None:
        held = self.truth.close(rid, charge)
        if held and charge is not None and charge > held.amount:
            self._excuse(held.payers, of_loss=False)

    def _close_expired(self) -> None:
        expired = [held for held in self.kept.holds.values() if held.ends <= self.now]
        for held in sorted(expired, key=lambda held: (held.ends, held.rid))[:16]:
            self._close(held.rid, None)

    def _excuse(self, payers: Iterable[Payer], *, of_loss: bool) -> None:
        for payer in payers:
            if not of_loss or self.kept.taken(payer) < self.truth.taken(payer):
                self.excused.add(payer)
