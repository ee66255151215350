"""The runbook is walked through on a live server, and every step shows what the page says."""

import asyncio
import os
import re
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.command_stage import Running, scrubbed, server_py, workers_of
from tests.faults.test_rotation import all_answer
from tests.faults.topology_stage import Node
from tests.operator_stage import API, TOKEN, Operator, operating
from tests.runbook_stage import PAGE, Shell, Step, by_http, by_redis, misses, nights, steps
from tests.stage import OPERATORS_KEY, ROOT, SECRET, Upstream, Visitor, eventually, visiting
from tests.upstream import play

MISSING = [name for name in ("bash", "curl", "redis-cli") if shutil.which(name) is None]
if MISSING and os.environ.get("CI") != "true":
    pytest.skip(f"{MISSING} are needed: apt-get install curl redis", allow_module_level=True)

LIMIT = 30.0
CHANGES = re.compile(r"sed -i|kill|redis-cli|>>|tell ")
SERVER = {
    "ADMIN_TOKEN": TOKEN,
    "WORKERS": "2",
    "TRUSTED_PROXIES": "127.0.0.1",
    "REDIS_CONNECT_TIMEOUT_MS": "300",
    "VISITOR_DAILY_BUDGET_USD": "5",
    "START_LIMIT": "100000/hour",
    "START_LIMIT_GLOBAL": "100000/minute",
    "RATE_LIMIT": "100000/minute",
}


@dataclass
class Stack:
    """A server, its Redis, its upstream, an operator's shell and page, and two visitors."""

    running: Running
    store: Node
    upstream: Upstream
    shell: Shell
    operator: Operator
    culprit: Visitor
    other: Visitor
    shown: Any = None

    async def walk(self, night: list[Step]) -> None:
        """Do what each step says; what was run is run again until it shows what it should."""
        last = seen = ""
        for step in night:
            if step.kind in ("run", "http"):
                last, seen = step.text, await self.shell.run(step.text)
            elif step.kind == "see":
                await self.see(step.text, last, seen)
            elif step.kind == "then":
                await ACTS[step.text](self)
            else:
                await self.are_told(step.who, step.text)

    async def see(self, expected: str, command: str, seen: str) -> None:
        """What was printed is what the page says, at the latest when it is looked at again."""
        end = time.monotonic() + LIMIT
        while missing := misses(expected, seen):
            assert time.monotonic() < end, f"{command}\nprints no {missing}\nbut\n{seen}"
            looking = [line for line in command.splitlines() if not CHANGES.search(line)]
            seen = await self.shell.run("\n".join(looking))

    async def are_told(self, who: str, what: str) -> None:
        """A visitor's next turn is answered like this, soon; a refusal also by its code."""
        visitor = self.culprit if "blocked" in who else self.other
        shown = visitor.token if "token of before" in who else None
        told: set[str] = set()

        async def is_so() -> bool:
            visitor.token = shown
            answer = await visitor.say(play(words=1))
            told.add(f"{answer.status} {answer.code or ''}".strip())
            return what in told

        try:
            await eventually(is_so, LIMIT)
        except AssertionError:
            pytest.fail(f"{who}: {what} expected, {told} came")
        assert await self.shows(who, what), f"{who}: {what}, and the page shows {self.shown}"

    async def shows(self, who: str, what: str) -> bool:
        """Whether the operator's page says what visitors are told."""
        answer = await self.operator.ask("GET", f"{API}state")
        self.shown = answer.json
        if answer.status != 200:
            return bool(answer.code) and str(answer.code) in what
        if "blocked" in who:
            return len(self.shown["blocked"]) == ("visitor_blocked" in what)
        is_spent = self.shown["left_micro_usd"] == 0
        return (self.shown["paused"], is_spent) == ("paused" in what, "exhausted" in what)


async def spend_all(stack: Stack) -> None:
    """One visitor spends the day's money."""
    while True:
        answer = await stack.culprit.say(play(prompt=1_000_000, words=1))
        if answer.code == "budget_exhausted":
            return
        assert answer.status == 200, answer.body


async def lose_redis(stack: Stack) -> None:
    """Its process dies, and what it wrote is gone; whichever worker is asked next remembers it."""
    for _ in range(10):  # each on a connection of its own, which either worker takes
        assert (await stack.other.say(play(prompt=10_000))).status == 200
    stack.store.kill()
    shutil.rmtree(Path(stack.store.socket).parent / "appendonlydir")


async def start_redis(stack: Stack) -> None:
    """It comes back, and knows nothing."""
    stack.store.start()
    await asyncio.to_thread(stack.store.ready)


async def flood(stack: Stack) -> None:
    """Somebody begins chats, and spends; whom the limits stop stands in the log."""

    async def is_stopped() -> bool:
        stack.culprit.token = None
        return (await stack.culprit.say(play(prompt=20_000))).code == "start_limited"

    await eventually(is_stopped, LIMIT)


async def upstream_fails(stack: Stack) -> None:
    """Whatever key asks gets a status of 500."""
    await stack.upstream.answer_keys(**{OPERATORS_KEY: {"status": 500, "body": {}}})


async def upstream_is_well(stack: Stack) -> None:
    """All keys are answered as they ask."""
    await stack.upstream.answer_keys()


async def revoke(stack: Stack) -> None:
    """The operator's console takes the old key back."""
    await stack.upstream.answer_keys(**{OPERATORS_KEY: {"status": 401, "body": {}}})


ACTS: dict[str, Callable[[Stack], Awaitable[None]]] = {
    "the old key is revoked": revoke,
    "the budget is spent by one visitor": spend_all,
    "Redis dies and its disk is lost": lose_redis,
    "Redis is started again, empty": start_redis,
    "upstream fails": upstream_fails,
    "upstream is well again": upstream_is_well,
    "somebody floods with new chats": flood,
}


@asynccontextmanager
async def live(directory: Path, upstream: Upstream, **said: str) -> AsyncIterator[Stack]:
    """The stack, with an operator's directory as the page wants it."""
    home = directory / "home"
    home.mkdir()
    for name in ("server.py", ".venv"):
        (home / name).symlink_to(ROOT / name)
    (home / ".env").write_text(f"OPENAI_API_KEY={OPERATORS_KEY}\nAPI_SECRET_KEY={SECRET}\n")
    store = Node(directory / "redis")
    store.start()
    environment = {**SERVER, "REDIS_URL": f"redis://127.0.0.1:{store.port}/0", **said}
    environment["OPENAI_BASE_URL"] = upstream.url
    async with AsyncExitStack() as stack:
        stack.callback(store.kill)
        await asyncio.to_thread(store.ready)
        running = await asyncio.to_thread(stack.enter_context, server_py(home, **environment))
        await asyncio.to_thread(all_answer, running)
        assert len(workers_of(running)) == 2
        shell = stack.enter_context(Shell(home, of_operator(running, environment)))
        visitors = [
            await stack.enter_async_context(
                visiting(
                    running.url,
                    fingerprint=secrets.token_urlsafe(16),
                    extra={"X-Forwarded-For": address, "Connection": "close"},
                )
            )
            for address in ("203.0.113.1", "203.0.113.2")
        ]
        operator = await stack.enter_async_context(operating(running.url))
        yield Stack(running, store, upstream, shell, operator, *visitors)


def of_operator(running: Running, environment: dict[str, str]) -> dict[str, str]:
    """What the page wants in the shell."""
    ours = {
        "KEYTURN_URL": running.url,
        "KEYTURN_PID": str(running.process.pid),
        "KEYTURN_LOG": str(running.err),
    }
    return {**scrubbed(**environment), **ours, "PATH": os.environ["PATH"]}


NIGHTS = nights()
TELL, *_ = NIGHTS[""]
WITHOUT_REDIS = [name for name, night in NIGHTS.items() if night != by_redis(night)]


async def walk(stack: Stack, night: list[Step]) -> None:
    """Do these steps in a shell that knows how to ask the operator's API."""
    await stack.shell.run(TELL.text)
    await stack.walk(night)
    assert "Traceback" not in stack.running.said


def limits_of(night: str) -> dict[str, str]:
    """What an attack runs into."""
    return {"START_LIMIT": "600/hour"} if "attack" in night else {}


@pytest.mark.parametrize("night", NIGHTS, ids=lambda name: name or "whatever it is")
async def test_a_night_goes_as_the_page_says(
    tmp_path: Path, upstream: Upstream, night: str
) -> None:
    """Each command is run as it stands, in order; what one sees and what visitors get is so."""
    async with live(tmp_path, upstream, **limits_of(night)) as stack:
        await walk(stack, by_redis(NIGHTS[night]))


@pytest.mark.parametrize("night", WITHOUT_REDIS, ids=lambda name: name or "whatever it is")
async def test_it_goes_by_http_as_well(tmp_path: Path, upstream: Upstream, night: str) -> None:
    """The same, with what stands at *By HTTP* in its place: no command asks Redis itself."""
    steps_by_http = by_http(NIGHTS[night])
    assert [step.text for step in steps_by_http if "redis-cli" in step.text] == []
    async with live(tmp_path, upstream, **limits_of(night)) as stack:
        await walk(stack, steps_by_http)


def test_the_page_is_what_is_walked() -> None:
    """Five nights, each with commands, sights and what visitors are told; no block is passed by."""
    assert len(NIGHTS) == 1 + 5
    for name, night in NIGHTS.items():
        assert {"run", "see", "told"} <= {step.kind for step in night}, name
    every = [step for night in NIGHTS.values() for step in night]
    text, blocks = PAGE.read_text(), ("run", "http", "see")
    assert len([step for step in every if step.kind in blocks]) * 2 == text.count("```")
    assert TELL.text.startswith("tell() {")
    assert len(WITHOUT_REDIS) == 4
    assert {step.text for step in every if step.kind == "then"} == set(ACTS)


def test_the_alerts_that_are_named_are_there() -> None:
    """In deploy/alerts.yml, by these names."""
    named = set(re.findall(r"`(Keyturn\w+)`", PAGE.read_text()))
    defined = re.findall(r"alert: (\w+)", (ROOT / "deploy" / "alerts.yml").read_text())
    assert len(named) > 3
    assert named <= set(defined)


async def test_a_page_that_is_wrong_is_noticed(tmp_path: Path) -> None:
    """The control: a sight that does not come, in another order, or after a wrong command."""
    page = "```sh\necho one; echo two; echo 3 is three\n```\n\n```text\n{}\n```\n"
    for expected, missing in {
        "one\ntwo\n… three": [],
        "one\n… is …": [],
        "two\none": ["one"],
        "four": ["four"],
        "three": ["three"],
        "on": ["on"],
    }.items():
        run, see = steps(page.format(expected))
        with Shell(tmp_path, scrubbed()) as shell:
            assert misses(see.text, await shell.run(run.text)) == missing
