"""Runs cases one after the other, and the slow ones beside each other."""

import asyncio
import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from attacks.attacker import Attacker, Target
from attacks.board import Board, Fallen
from attacks.case import Case, Outcome, Place, Result, judge
from attacks.stage import Stage
from attacks.store import MARK, Look
from attacks.wire import Answer

REST: Final = 5.0  # seconds until what was admitted is settled
SMUGGLED: Final = 0.05  # seconds for what was hidden in a request to get upstream
ENDLESS: Final = 60.0  # seconds for any case
_numbers = itertools.count(1)


@dataclass
class Run:
    """Cases against the servers of a stage."""

    stage: Stage

    async def heading(self, board: Board, table: list[Case]) -> str:
        """The cases of a heading, their controls, and the line of the board that says how it was.

        What is slow at Keyturn is slow at the control: both wait at the same time.
        """
        started = time.monotonic()
        controls = [case for case in table if case.control] if self.stage.naive else []
        results = [await self.one(case) for case in table if not case.slow]
        fallen = [await self._at_naive(case) for case in controls if not case.slow]
        slow = [case for case in table if case.slow]
        if slow:
            more, fell = await self.together(slow, [case for case in controls if case.slow])
            results, fallen = results + more, fallen + fell
        results[-1].faults += [
            f"after this heading: {odd}"
            for odd in (*self.stage.store.odd_keys(), *self.stage.store.secrets())
        ]
        self.stage.store.drop_what_is_over()
        return board.row(table[0].heading, results, fallen, time.monotonic() - started)

    async def one(self, case: Case) -> Result:
        """One case at Keyturn."""
        attacker = self.attacker(self._place(case))
        await self._prepare(attacker, case)
        before = self.stage.store.look()
        answers, seconds = await _timed(attacker, case)
        outcome = Outcome(attacker, answers, [], seconds)
        after = await self._rest()
        self._take_stock(outcome, before, after)
        faults = judge(case, outcome)
        if case.keeps:
            faults += await _require_kept(attacker)
            await self._rest()
            self.stage.new_posts()
        return Result(case, faults, seconds)

    async def together(
        self, cases: list[Case], controls: list[Case]
    ) -> tuple[list[Result], list[Fallen]]:
        """Cases that mostly wait; their POSTs are told apart by the attackers' marks."""
        here = [self.attacker(self._place(case)) for case in cases]
        for number, (attacker, case) in enumerate(zip(here, cases, strict=True)):
            attacker.address = f"203.0.113.{100 + number}"
            await self._prepare(attacker, case)
        there = [await self._elsewhere(self._naive, case) for case in controls]
        before = self.stage.store.look()
        self.stage.new_posts()
        ended = await asyncio.gather(*map(_timed, here + there, cases + controls))
        after, posts = await self._rest(), self.stage.new_posts()
        outcomes = [
            Outcome(attacker, answers, _of(attacker, posts), seconds, case.admitted)
            for attacker, case, (answers, seconds) in zip(
                here + there, cases + controls, ended, strict=True
            )
        ]
        wrong = _differ(after.admitted_since(before), sum(case.admitted for case in cases))
        results = [
            Result(case, judge(case, outcome) + wrong, outcome.seconds)
            for case, outcome in zip(cases, outcomes, strict=False)
        ]
        judged = zip(controls, outcomes[len(cases) :], strict=True)
        return results, [(case, case.harm(case, outcome)) for case, outcome in judged]

    async def at(self, target: Target, case: Case) -> str | None:
        """The harm that one case does at another server."""
        attacker = await self._elsewhere(target, case)
        self.stage.new_posts()
        answers, seconds = await _timed(attacker, case)
        await asyncio.sleep(SMUGGLED)
        outcome = Outcome(attacker, answers, self.stage.new_posts(), seconds)
        return case.harm(case, outcome)

    async def all_at(self, where: Callable[[Place], Target], cases: list[Case]) -> list[Fallen]:
        """What many cases do at another server; the slow ones at the same time."""
        slow = [case for case in cases if case.slow]
        done = [(case, await self.at(where(case.where), case)) for case in cases if not case.slow]
        there = [await self._elsewhere(where(case.where), case) for case in slow]
        self.stage.new_posts()
        ended = await asyncio.gather(*map(_timed, there, slow))
        posts = self.stage.new_posts()
        for attacker, case, (answers, seconds) in zip(there, slow, ended, strict=True):
            outcome = Outcome(attacker, answers, _of(attacker, posts), seconds)
            done.append((case, case.harm(case, outcome)))
        return done

    async def _at_naive(self, case: Case) -> Fallen:
        return case, await self.at(self._naive, case)

    @property
    def _naive(self) -> Target:
        assert self.stage.naive
        return self.stage.naive

    async def _elsewhere(self, target: Target, case: Case) -> Attacker:
        attacker = self.attacker(replace(target, model=self._place(case).model))
        number = next(_numbers)
        attacker.address = f"10.7.{number // 250}.{number % 250}"  # nobody's before
        for _ in range(case.turns):
            await attacker.take()
        return attacker

    def attacker(self, target: Target) -> Attacker:
        """Somebody new, with a mark of their own."""
        mark = f"Quokka-{next(_numbers):04d}{MARK}"
        logs = partial(self.stage.logs_of, target)
        return Attacker(target, self.stage.rogue, mark, self.stage.store, logs)

    def _place(self, case: Case) -> Target:
        return self.stage.main if case.where == "main" else self.stage.strict

    async def _prepare(self, attacker: Attacker, case: Case) -> None:
        self.stage.store.forget_limits()
        for _ in range(case.turns):
            answer = await attacker.take()
            assert answer.told == "200", f"{case.name}: a good turn was told {answer.told}"
        if case.turns:
            await self._rest()
        self.stage.new_posts()

    async def _rest(self) -> Look:
        """How Redis stands once nothing is open, or after a while all the same."""
        end = time.monotonic() + REST
        while (look := self.stage.store.look()).holds and time.monotonic() < end:
            await asyncio.sleep(0.01)
        return look

    def _take_stock(self, outcome: Outcome, before: Look, after: Look) -> None:
        outcome.posts = self.stage.new_posts()
        outcome.admitted = after.admitted_since(before)
        outcome.calls = after.calls - before.calls
        outcome.spent = after.spent - before.spent
        outcome.open_holds = after.holds


def _differ(admitted: int, should: int) -> list[str]:
    if admitted == should:
        return []
    return [f"turns admitted, of all slow ones: {admitted}, should be {should}"]


def _of(attacker: Attacker, posts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The POSTs that one attacker caused."""
    return [post for post in posts if attacker.mark in repr(post["body"])]


async def _timed(attacker: Attacker, case: Case) -> tuple[list[Answer], float]:
    started = time.monotonic()
    try:
        async with asyncio.timeout(ENDLESS):
            answers = await case.attack(attacker)
    except TimeoutError:
        answers = [Answer(0, silence="no end")]
    return answers, time.monotonic() - started


async def _require_kept(attacker: Attacker) -> list[str]:
    answer = await attacker.take()
    return [] if answer.told == "200" else [f"afterwards the good token is told {answer.told}"]


def named(heading: str, cases: Iterable[Case]) -> Iterator[Case]:
    """The cases of a heading, which say so."""
    return (replace(case, heading=heading) for case in cases)
