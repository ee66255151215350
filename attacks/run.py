"""Runs cases one after the other, and the slow ones beside each other."""

import asyncio
import itertools
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

from attacks.attacker import Attacker, Target
from attacks.case import Case, Outcome, Result, judge
from attacks.stage import Stage
from attacks.store import Look
from attacks.wire import Answer

REST: Final = 5.0  # seconds until what was admitted is settled
SMUGGLED: Final = 0.05  # seconds for what was hidden in a request to get upstream
_numbers = itertools.count(1)


@dataclass
class Run:
    """Cases against the servers of a stage; `heard` is every answer of Keyturn so far."""

    stage: Stage
    heard: list[Answer]

    async def all(self, cases: Iterable[Case]) -> list[Result]:
        """Every case at Keyturn, in order; the slow ones at the same time, in the end."""
        cases = list(cases)
        results = [await self.one(case) for case in cases if not case.slow]
        if slow := [case for case in cases if case.slow]:
            results += await self.together(slow)
        return results

    async def one(self, case: Case) -> Result:
        """One case at Keyturn."""
        attacker = self.attacker(self._place(case))
        await self._prepare(attacker, case)
        before = self.stage.store.look()
        answers, seconds = await _timed(attacker, case)
        outcome = Outcome(attacker, answers, [], seconds)
        after = await self._rest()
        self._take_stock(outcome, before, after)
        faults = judge(case, outcome) + list(self.stage.store.odd_keys())
        if case.keeps:
            faults += await _require_kept(attacker)
            await self._rest()
            self.stage.new_posts()
        self.heard += attacker.heard
        return Result(case, faults, seconds)

    async def together(self, cases: list[Case]) -> list[Result]:
        """Cases that mostly wait; their POSTs are told apart by the attackers' marks."""
        attackers = [self.attacker(self._place(case)) for case in cases]
        for number, (attacker, case) in enumerate(zip(attackers, cases, strict=True)):
            attacker.address = f"203.0.113.{100 + number}"
            await self._prepare(attacker, case)
        before = self.stage.store.look()
        ended = await asyncio.gather(*map(_timed, attackers, cases))
        after = await self._rest()
        posts, admitted = self.stage.new_posts(), after.admitted_since(before)
        should = sum(case.admitted for case in cases)
        results = []
        for attacker, case, (answers, seconds) in zip(attackers, cases, ended, strict=True):
            outcome = Outcome(attacker, answers, _of(attacker, posts), seconds, case.admitted)
            faults = judge(case, outcome)
            if admitted != should:
                faults.append(f"turns admitted, of all slow ones: {admitted}, should be {should}")
            results.append(Result(case, faults, seconds))
            self.heard += attacker.heard
        return results

    async def at(self, target: Target, cases: Iterable[Case]) -> list[tuple[Case, str | None]]:
        """Cases at another server, each with the harm that was done there, if any."""
        cases = list(cases)
        done = [await self._at(target, case) for case in cases if not case.slow]
        return done + await self._slowly_at(target, [case for case in cases if case.slow])

    async def _at(self, target: Target, case: Case) -> tuple[Case, str | None]:
        attacker = await self._elsewhere(target, case)
        self.stage.new_posts()
        answers, seconds = await _timed(attacker, case)
        await asyncio.sleep(SMUGGLED)
        posts = self.stage.new_posts()
        return case, case.harm(case, Outcome(attacker, answers, posts, seconds))

    async def _slowly_at(
        self, target: Target, cases: list[Case]
    ) -> list[tuple[Case, str | None]]:
        attackers = [await self._elsewhere(target, case) for case in cases]
        self.stage.new_posts()
        ended = await asyncio.gather(*map(_timed, attackers, cases))
        posts, done = self.stage.new_posts(), []
        for attacker, case, (answers, seconds) in zip(attackers, cases, ended, strict=True):
            outcome = Outcome(attacker, answers, _of(attacker, posts), seconds)
            done.append((case, case.harm(case, outcome)))
        return done

    async def _elsewhere(self, target: Target, case: Case) -> Attacker:
        attacker = self.attacker(replace(target, model=self._place(case).model))
        attacker.address = f"192.0.2.{next(_numbers) % 250}"
        for _ in range(case.turns):
            await attacker.take()
        return attacker

    def attacker(self, target: Target) -> Attacker:
        """Somebody new, with a mark of their own."""
        mark = f"Quokka-{next(_numbers):04d}-7b6a5c"
        return Attacker(target, self.stage.rogue, mark, self.stage.store)

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


def _of(attacker: Attacker, posts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The POSTs that one attacker caused."""
    return [post for post in posts if attacker.mark in repr(post["body"])]


async def _timed(attacker: Attacker, case: Case) -> tuple[list[Answer], float]:
    started = time.monotonic()
    answers = await case.attack(attacker)
    return answers, time.monotonic() - started


async def _require_kept(attacker: Attacker) -> list[str]:
    answer = await attacker.take()
    return [] if answer.told == "200" else [f"afterwards the good token is told {answer.told}"]


def named(heading: str, cases: Iterable[Case]) -> Iterator[Case]:
    """The cases of a heading, which say so."""
    return (replace(case, heading=heading) for case in cases)
