"""What goes wrong when the app runs as its user of Redis, its operator's page included."""

from contextlib import suppress
from typing import Any, Final

from check import look as look_for_check
from embedded import Parts
from findings import has_fault
from pages import readiness
from security.errors import Rejection
from security.trust import look
from tests.acl_stage import Guarded
from tests.operator_stage import API as ADMIN
from tests.operator_stage import GETS, POSTS, Operator, operating, session_of, settings_for
from tests.own_key_stage import ask
from tests.prometheus_stage import METRICS_TOKEN, read, value
from tests.stage import Server, Upstream, Visitor, eventually, serving, settings_with, visiting

NOTHING: Final = Parts(None, None, None, None)
BASE: Final = "keyturn:{main}:"


async def visit(store: Guarded, visitor: Visitor) -> list[str]:
    """Every kind of turn, a money restored, and what of it went wrong."""
    said = []
    for turn in (visitor.say(), visitor.say(), ask(visitor)):
        answer = await turn
        said += [] if answer.status == 200 else [f"{turn}: {answer.code}"]
    refused = await visitor.say(headers={"Authorization": "Bearer sk-refused"})
    said += [] if refused.code == "byok_key_rejected" else [f"a refused key: {refused.code}"]
    store.tell("FLUSHALL")
    store.tell("SCRIPT", "FLUSH")
    visitor.token = None
    restored = await visitor.say()
    return said + ([] if restored.status == 200 else [f"after a flush: {restored.code}"])


async def serve(store: Guarded, upstream: Upstream) -> list[str]:
    """What goes wrong when the app runs as its user: turns, money, `/readyz`, metrics, `check`."""
    settings = settings_with(
        redis_url=store.url("keyturn"),
        openai_base_url=upstream.url,
        byok_base_url=upstream.url,
        metrics_token=METRICS_TOKEN,
    )
    await upstream.answer_keys(sk_refused={"status": 401, "body": {}})
    async with serving(settings) as server, visiting(server) as visitor:
        said = await visit(store, visitor)
        failure = await look(server.keyturn.store, server.keyturn.ledger, must_persist=False)
        said += [f"looking at it: {failure}"] if failure else []
        state = await readiness(server.keyturn)
        said += [f"{part}: {state[part]}" for part in ("redis", "store") if state[part] != "ok"]
        said += await unsettled(store)
        said += await unmeasured(server)
    found = await look_for_check(settings, NOTHING, live=False)
    return said + (["check finds a fault"] if has_fault(found) else [])


async def unsettled(store: Guarded) -> list[str]:
    """Whether money stays held that nobody gives back."""

    async def is_settled() -> bool:
        return not store.tell("KEYS", f"{BASE}hold:*")

    with suppress(AssertionError):
        await eventually(is_settled, 1)
        return []
    return ["a hold is not settled"]


async def unmeasured(server: Server) -> list[str]:
    """Whether a scrape does not see the money."""
    return [] if value(await read(server.url), "keyturn_redis_up") else ["/metrics is blind"]


DECISIONS: dict[str, dict[str, Any]] = {
    "pause": {},
    "resume": {},
    "cap": {"usd": None},
    "block": {"visitor": "GAu8-nGVFsMZCdwS4CD-xw"},
    "unblock": {"visitor": "GAu8-nGVFsMZCdwS4CD-xw"},
    "revoke": {"visitor": "GAu8-nGVFsMZCdwS4CD-xw"},
}


async def operate(store: Guarded, upstream: Upstream) -> list[str]:
    """What goes wrong at the operator's page: history, sights, decisions, log-in and log-out."""
    settings = settings_for(store.url("keyturn"), upstream, metrics_token=METRICS_TOKEN)
    async with (
        serving(settings) as server,
        visiting(server) as visitor,
        operating(server) as operator,
    ):
        turns = [await visitor.say(), await visitor.say(headers={"Keyturn_Timestamp": None})]
        assert [turn.status for turn in turns] == [200, 400]
        said = await unwritten(server)
        answers = [await operator.ask("GET", ADMIN + what) for what in GETS]
        answers += [await operator.decide(what, **DECISIONS[what]) for what in POSTS]
        answers.append(await operator.decide("revoke", token=visitor.token))
        said += [f"{each.status}: {each.json}" for each in answers if each.status != 200]
        return said + await not_at_home(operator) + await unmeasured(server)


async def unwritten(server: Server) -> list[str]:
    """Whether the history cannot be written: what is pending since the start, and what is new."""
    assert server.keyturn.console
    try:
        for _ in range(2):
            await server.keyturn.console.recorder.write()
    except Rejection as rejection:
        return [f"the history: {rejection.code}"]
    return []


async def not_at_home(operator: Operator) -> list[str]:
    """Whether a wrong token is not told so, or a session does not begin and end."""
    guesser = Operator(operator.session, operator.url, "wrong")
    browser = Operator(operator.session, operator.url, None)
    cookie = await session_of(operator)
    said = {"Cookie": cookie, "Origin": operator.url, "Content_Type": "application/json"}
    came = [
        await guesser.ask("GET", f"{ADMIN}state"),
        await browser.ask("GET", f"{ADMIN}history", Cookie=cookie),
        await browser.ask("POST", f"{ADMIN}logout", b"{}", **said),
        await browser.ask("GET", f"{ADMIN}history", Cookie=cookie),
    ]
    told = [answer.status for answer in came]
    return [] if told == [401, 200, 200, 401] else [f"sessions: {told}"]
