"""Whatever becomes of turns, workers and the store: the scripts and a model count alike."""

import asyncio
import re
from collections import defaultdict
from copy import deepcopy
from typing import Any, NamedTuple

import pytest
from hypothesis import Phase
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
)

from security.budget import WorstCase
from security.errors import Rejection
from security.ledger import new_rid
from security.scripts import Verdict, Visitor
from security.store import MEMORY, connect
from tests.security.ledger_stage import PREFIX, Altered, Chain, Store
from tests.security.machines import run
from tests.security.money_model import A_DAY, Held, Kept, Model, Worker
from tests.security.money_stage import NOON, Clocked, Till

MONEY = re.compile(rb"keyturn:{t}:(spend|hold):")
LEASE = 100
VISITORS = st.sampled_from([Visitor("a"), Visitor("n1", "w"), Visitor("n2", "w")])
CAPS = st.sampled_from([(3000, 1200), (20_000, 1000), (2000, None), (None, 800), (None, None)])
WORST = st.builds(
    WorstCase,
    st.sampled_from([0, 1, 10_000_000, 333_333_333]),
    st.sampled_from([0, 1_000_000, 1_600_001]),
    st.sampled_from([16, 300, 700]),
)
WORKERS = st.sampled_from([0, 1])
CHARGES = st.sampled_from(["nothing", "less", "less", "equal", "more", "far more"])
DAYS = st.tuples(st.sampled_from([1, 1, 2]), st.sampled_from([-1, 0, 60]))
TROUBLES = st.sampled_from(["crash", "back up", "back up", "flush", "go back"])


class Open(NamedTuple):
    """A turn that was admitted by a worker, which may be gone."""

    rid: str
    visitor: Visitor
    amount: int
    by: int
    worker: Worker


class Seen(NamedTuple):
    """What stands in Redis of all money."""

    purses: dict[tuple[int, str], tuple[int, int]]
    days: dict[int, tuple[int, int, int]]
    holds: dict[str, tuple[int, int, tuple[str, ...]]]
    leases: dict[str, int]
    epochs: dict[int, str]


class Money(RuleBasedStateMachine):
    """Two workers and three visitors, of which two share a /48."""

    url = MEMORY
    change: tuple[str, str, str] | None = None
    turns: Bundle[Open] = Bundle("turns")
    ended: Bundle[Open] = Bundle("ended")

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.backup: tuple[dict[bytes, bytes], Kept] = {}, Kept()
        self.before: Seen | None = None

    @initialize(caps=CAPS)
    def begin(self, caps: tuple[int | None, int | None]) -> None:
        """An empty store, and two workers with these caps."""
        self.caps = caps
        self.model = Model(*caps, LEASE, NOON, [Worker(), Worker()])
        self.store: Store = self.runner.run(self._opened())
        self.tills = [self._new_worker(), self._new_worker()]

    def teardown(self) -> None:
        """Close what was opened."""
        if hasattr(self, "store"):
            self.runner.run(self.store.aclose())
        self.runner.close()

    @rule(target=turns, asked=st.lists(st.tuples(WORKERS, VISITORS, WORST), min_size=1, max_size=4))
    def hold(self, asked: list[tuple[int, Visitor, WorstCase]]) -> Any:
        """Ask for some turns."""
        return multiple(*(turn for each in asked if (turn := self._hold(*each))))

    @rule(target=ended, turn=consumes(turns), charge=CHARGES)
    def settle(self, turn: Open, charge: str) -> Any:
        """A turn ends, or would: that of a worker that is gone never does."""
        if turn.worker is not self.model.workers[turn.by]:
            return multiple()
        self._end(turn, turn.by, charge)
        return turn

    @rule(turn=ended, by=WORKERS, charge=CHARGES)
    def settle_again(self, turn: Open, by: int, charge: str) -> None:
        """A turn that has ended ends once more, by whichever worker."""
        self._end(turn, by, charge)

    @rule(seconds=st.sampled_from([1, LEASE // 2, LEASE, 3 * LEASE, -A_DAY]), to=DAYS)
    def wait(self, seconds: int, to: tuple[int, int]) -> None:
        """Time passes: leases end, another day begins or is about to."""
        days, after_midnight = to
        midnight = (self.model.today + days) * A_DAY + after_midnight
        self.model.now = max(self.model.now, midnight if seconds < 0 else self.model.now + seconds)
        self.runner.run(Clocked(self.store).show(self.model.now))

    @rule(by=WORKERS, what=TROUBLES)
    def trouble(self, by: int, what: str) -> None:
        """A worker dies, and another takes its place; the store is saved, or loses all, or some."""
        if what == "crash":
            self.model.crash(by)
            self.tills[by] = self._new_worker()
        elif what == "back up":
            self.backup = self.runner.run(self._dumped()), deepcopy(self.model.kept)
        else:
            dumped, kept = ({}, Kept()) if what == "flush" else self.backup
            self.runner.run(self._replaced(dumped))
            self.model.lose(kept)
            self.before = None

    @invariant()
    def counts_as_the_model_does(self) -> None:
        """Every purse, every hold and every lease is what the model says."""
        if not hasattr(self, "store"):
            return
        kept, seen = self.model.kept, self.runner.run(self._seen())
        assert seen.purses == {
            payer: (purse.spent, purse.held) for payer, purse in kept.purses.items()
        }
        assert seen.days == {
            day: (count.changes, count.before, count.over) for day, count in kept.days.items()
        }
        assert seen.holds == {
            held.rid: (held.amount, held.day, held.names) for held in kept.holds.values()
        }
        assert seen.leases == {held.rid: held.ends * 1000 for held in kept.holds.values()}
        self._agrees_with_itself(seen)
        self.model.check()

    def _agrees_with_itself(self, seen: Seen) -> None:
        """What is held is the sum of the holds; nothing is negative; in one epoch nothing falls."""
        held: dict[tuple[int, str], int] = defaultdict(int)
        for amount, day, names in seen.holds.values():
            for name in ("", *names):
                held[day, name] += amount
        for payer, (spent, held_of_payer) in seen.purses.items():
            assert spent >= 0
            assert held_of_payer == held[payer] >= 0
        for day, epoch in (self.before.epochs if self.before else {}).items():
            assert self.before
            if seen.epochs[day] == epoch:
                assert seen.days[day][0] >= self.before.days[day][0]
                for payer in self.before.purses:
                    if payer[0] == day:
                        assert seen.purses[payer][0] >= self.before.purses[payer][0]
        self.before = seen

    def _hold(self, by: int, visitor: Visitor, worst: WorstCase) -> Open | None:
        rid = new_rid()
        names = (visitor.address, visitor.wide) if visitor.wide else (visitor.address,)
        held, code = self.model.admit(by, rid, names, worst)
        told, verdict = self.runner.run(self._asked(by, rid, visitor, worst))
        assert told == code
        if held is None or verdict is None:
            return None
        self._compare(verdict, held)
        return Open(rid, visitor, held.amount, by, self.model.workers[by])

    def _compare(self, verdict: Verdict, held: Held) -> None:
        told = verdict.hold
        assert (told.micro_usd, told.max_output, told.day) == (held.amount, held.tokens, held.day)
        budget = verdict.standing.budget
        assert (budget is None) == (self.caps[1] is None)
        assert budget is None or budget.remaining == max(0, self.model.left(*held.names))

    def _end(self, turn: Open, by: int, charge: str) -> None:
        amount = turn.amount
        cost = {"nothing": 0, "less": amount // 2, "equal": amount, "more": amount + 1}
        micro_usd = cost.get(charge, 10 * amount)
        self.model.settle(by, turn.rid, micro_usd)
        self.runner.run(self.tills[by].settle(turn.rid, micro_usd, turn.visitor))

    def _new_worker(self) -> Till:
        changed = self.store
        if self.change:
            script, old, new = self.change
            changed = Altered(self.store, old, new, script=script)
        return Till(Clocked(changed), day=self.caps[0], visitor=self.caps[1], lease=LEASE)

    # -- Redis

    async def _opened(self) -> Store:
        store = connect(self.url, timeout=5, connect_timeout=5)
        await store.flushall()
        await Clocked(store).show(NOON)
        return store

    async def _asked(
        self, by: int, rid: str, visitor: Visitor, worst: WorstCase
    ) -> tuple[str, Verdict | None]:
        try:
            chain = Chain(self.tills[by].ledger, self.store, visitor)
            return "admitted", await chain.redeem(rid=rid, worst=worst)
        except Rejection as refused:
            return refused.code, None

    async def _dumped(self) -> dict[bytes, bytes]:
        keys = await self.store.keys(PREFIX + "*")
        return {key: await self.store.dump(key) for key in keys}

    async def _replaced(self, dumped: dict[bytes, bytes]) -> None:
        await Clocked(self.store).lose_all()
        for key, value in dumped.items():
            await self.store.restore(key, 3_600_000, value)

    async def _seen(self) -> Seen:
        seen = Seen({}, {}, {}, {}, {})
        keys = [key for key in await self.store.keys(PREFIX + "*") if MONEY.match(key)]
        async with self.store.pipeline() as together:
            for key in keys:
                together.hgetall(key)
            together.zrange(PREFIX + "holds", 0, -1, withscores=True)
            *hashes, leases = await together.execute()
        seen.leases.update({rid.decode(): int(end) for rid, end in leases})
        for key, fields in zip(keys, hashes, strict=True):
            said = {name.decode(): value.decode() for name, value in fields.items()}
            _, _, kind, *names = key.decode().split(":")
            self._read(seen, kind, names, said)
        return seen

    def _read(self, seen: Seen, kind: str, names: list[str], said: dict[str, str]) -> None:
        if kind == "hold" and "micro_usd" in said:
            payers = tuple(name for name in (said["a"], said["w"]) if name)
            seen.holds[names[0]] = int(said["micro_usd"]), int(said["day"]), payers
        elif kind == "spend":
            day, name = int(names[0]), "".join(names[1:])
            seen.purses[day, name] = int(said.get("spent", 0)), int(said.get("held", 0))
            if not name:
                counts = [int(said.get(each, 0)) for each in ("changes", "before", "over")]
                seen.days[day] = counts[0], counts[1], counts[2]
                seen.epochs[day] = said.get("epoch", "")


def _machine(at: str, without: tuple[str, str, str] | None = None) -> type[Money]:
    class Here(Money):
        url = at
        change = without

    return Here


def test_the_scripts_count_as_the_model_does(store_url: str) -> None:
    """Over every store: random histories of turns, deaths, days and losses, counted alike."""
    run(_machine(store_url), 10 if store_url == MEMORY else 25, Phase.generate, Phase.shrink)


@pytest.mark.parametrize(
    ("script", "line", "instead"),
    [
        ("Admits", " - tonumber(fields[1] or '0')", ""),
        ("Admits", " - tonumber(fields[2] or '0')", ""),
        ("Admits", "close_expired(now)", ""),
        ("Admits", "if ARGV[29] ~= whole(today)", "if false"),
        ("Money", "redis.call('DEL', name)", ""),
        ("Money", "'spent', whole(charged or amount)", "'spent', whole(amount)"),
        ("Money", "stored_epoch ~= epoch or ", ""),
        ("Ends", "if is_forgotten(KEYS[7]", "if false and is_forgotten(KEYS[8]"),
        ("Gives", "if epoch == '' or epoch == ARGV[3]", "if epoch == ''"),
        ("Gives", "spent + known - before, known", "math.max(spent, known), known"),
    ],
)
def test_a_line_less_is_found(redis_url: str, script: str, line: str, instead: str) -> None:
    """Control: with any one of these lines changed, a history is found that counts otherwise."""
    with pytest.raises((AssertionError, Rejection)):
        run(_machine(redis_url, (script, line, instead)), 2000, Phase.generate)
