"""What the operator decides is so at the next admission of every worker: operator_api.py."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import redis

from recording import Recorder
from tests.operator_stage import API, TOKEN, Operator, operating, settings_for, two_workers
from tests.own_key_stage import ask
from tests.stage import Answer, Server, Upstream, Visitor, eventually, serving, visiting
from tests.upstream import play
from tests.wire import ByHand, streaming


@asynccontextmanager
async def desk(
    redis_url: str, upstream: Upstream
) -> AsyncIterator[tuple[Operator, Visitor, Visitor]]:
    """An operator at one worker, and a visitor at each."""
    async with (
        two_workers(redis_url, upstream) as (one, other),
        operating(one) as operator,
        visiting(one) as here,
        visiting(other) as there,
    ):
        yield operator, here, there


async def name_of(operator: Operator) -> str:
    """The only visitor, as the operator's page names it."""
    (top,) = (await operator.look("visitors"))["top"]
    return str(top["visitor"])


def good(answer: Answer) -> Answer:
    """An answer that is no refusal."""
    assert answer.status == 200, answer.body
    return answer


async def test_a_pause_holds_for_every_worker(redis_url: str, upstream: Upstream) -> None:
    """The very next turn is refused wherever it comes, its token is kept, and resume ends it."""
    async with desk(redis_url, upstream) as (operator, here, there):
        for visitor in (here, there):
            good(await visitor.say())
        assert good(await operator.decide("pause")).json["paused"] is True
        for visitor in (here, there):
            refused = await visitor.say()
            assert (refused.status, refused.code) == (503, "paused")
        assert good(await operator.decide("pause")).json["paused"] is True, "twice is once"
        assert good(await operator.decide("resume")).json["paused"] is False
        for visitor in (here, there):
            good(await visitor.say())


async def test_own_keys_go_on_in_a_pause(redis_url: str, upstream: Upstream) -> None:
    """They cost the operator nothing, and the page says that they go on."""
    async with desk(redis_url, upstream) as (operator, here, _):
        good(await operator.decide("pause"))
        good(await ask(here))


async def test_a_running_answer_ends_well(redis_url: str, hand: ByHand) -> None:
    """A pause, a block and a revocation cut nobody off: they are about the next turn."""
    settings = settings_for(redis_url, Upstream(hand.url))
    async with (
        serving(settings) as server,
        operating(server) as operator,
        visiting(server) as visitor,
        streaming(visitor, hand) as (answer, call),
    ):
        await call.say(b'data: {"choices": [{"delta": {"content": "on"}}]}\n\n')
        name = await name_of(operator)
        good(await operator.decide("pause"))
        good(await operator.decide("block", visitor=name))
        assert good(await operator.decide("revoke", visitor=name)).json["revoked"] == 1
        await call.end(
            b'data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'
        )
        assert (await answer.read()).endswith(b"data: [DONE]\n\n")
        assert (await visitor.say()).code == "visitor_blocked"


async def test_a_cap_holds_for_every_worker(redis_url: str, upstream: Upstream) -> None:
    """Set to nothing, nobody gets in; set back, the setting rules again."""
    async with desk(redis_url, upstream) as (operator, here, there):
        before = await operator.look("state")
        assert (before["cap_micro_usd"], before["cap_set_in"]) == (5_000_000, "DAILY_BUDGET_USD")
        state = good(await operator.decide("cap", usd="0")).json
        assert (state["cap_micro_usd"], state["cap_set_in"]) == (0, "control")
        for visitor in (here, there):
            assert (await visitor.say()).code == "budget_exhausted"
        state = good(await operator.decide("cap", usd="0.25")).json
        assert (state["cap_micro_usd"], state["cap_setting_micro_usd"]) == (250_000, 5_000_000)
        for visitor in (here, there):
            good(await visitor.say())
        assert good(await operator.decide("cap", usd=None)).json["cap_set_in"] != "control"


async def test_a_block_holds_for_every_worker(redis_url: str, upstream: Upstream) -> None:
    """By the name that the table shows; with an own key too; and it can be taken back."""
    async with desk(redis_url, upstream) as (operator, here, there):
        good(await here.say())
        name = await name_of(operator)
        (blocked,) = good(await operator.decide("block", visitor=name, hours=1)).json["blocked"]
        state = await operator.look("state")
        assert blocked["visitor"] == name
        assert 3_590_000 < blocked["until_ms"] - state["server_time_ms"] <= 3_600_000
        for visitor in (here, there):
            assert (await visitor.say()).code == "visitor_blocked"
        assert (await ask(here)).code == "visitor_blocked"
        assert good(await operator.decide("unblock", visitor=name)).json["blocked"] == []
        for visitor in (here, there):
            good(await visitor.say())


async def test_who_was_refused_can_be_blocked(redis_url: str, upstream: Upstream) -> None:
    """The name in the table of refusals is the one that blocking takes."""
    async with desk(redis_url, upstream) as (operator, here, _):
        assert (await here.say(n=2)).code == "unsupported_parameter"

        async def is_told() -> bool:
            return bool((await operator.look("visitors"))["refused"])

        await eventually(is_told)
        (refused,) = (await operator.look("visitors"))["refused"]
        assert (refused["code"], refused["count"]) == ("unsupported_parameter", 1)
        good(await operator.decide("block", visitor=refused["visitor"]))
        assert (await here.say()).code == "visitor_blocked"


async def test_a_chat_can_be_ended_by_its_token(redis_url: str, upstream: Upstream) -> None:
    """The token is honoured no more, in any worker; another chat is left alone."""
    async with desk(redis_url, upstream) as (operator, here, there):
        good(await here.say())
        good(await there.say())
        token, here.url = here.token, there.url
        assert good(await operator.decide("revoke", token=token)).json["revoked"] == 1
        refused = await here.say()
        assert (refused.code, refused.json["chain"]) == ("chain_revoked", "revoked")
        good(await there.say())
        here.token = None
        good(await here.say())


async def test_all_chats_of_a_visitor_can_be_ended(redis_url: str, upstream: Upstream) -> None:
    """Each of them, wherever they run; and none of another visitor."""
    async with desk(redis_url, upstream) as (operator, here, there):
        good(await here.say())
        name = await name_of(operator)
        good(await there.say())
        with redis.Redis.from_url(redis_url) as store:
            other = next(store.scan_iter("*:chain:*"))
            store.hset(other, "a", "A" * 22)
        assert good(await operator.decide("revoke", visitor=name)).json["revoked"] == 1
        codes = [(await visitor.say()).code for visitor in (here, there)]
        assert sorted(codes, key=str) == [None, "chain_revoked"]
        again = [good(await operator.decide("revoke", visitor=name)) for _ in range(2)]
        assert [each.json["revoked"] for each in again] == [1, 0], "where the last turn came from"


async def test_there_must_be_a_chat_to_end(redis_url: str, upstream: Upstream) -> None:
    """A chain that is not there is not made by ending it; a forged token ends none."""
    async with desk(redis_url, upstream) as (operator, here, _):
        assert (await operator.decide("revoke", chain="A" * 22)).code == "not_found"
        with redis.Redis.from_url(redis_url) as store:
            assert store.keys("*:chain:*") == []
        good(await here.say())
        forged = str(here.token)[:-6] + "AAAAAA"
        answer = await operator.decide("revoke", token=forged)
        assert (answer.status, answer.code) == (422, "invalid_request"), "401 ends a session"
        assert "token_forged" in answer.json["detail"]
        good(await here.say())


@pytest.mark.parametrize(
    ("what", "said", "names"),
    [
        ("cap", {"usd": "-1"}, "usd"),
        ("cap", {"usd": "off"}, "usd"),
        ("cap", {"usd": 5}, "usd"),
        ("cap", {}, "usd"),
        ("block", {"visitor": "203.0.113.7"}, "visitor"),
        ("block", {"visitor": "A" * 22, "hours": 0}, "hours"),
        ("block", {"visitor": "A" * 22, "hours": 9000}, "hours"),
        ("unblock", {}, "visitor"),
        ("revoke", {}, "one of"),
        ("revoke", {"chain": "A" * 22, "visitor": "A" * 22}, "one of"),
        ("pause", {"for": "ever"}, "for"),
    ],
)
async def test_what_is_no_decision_is_refused(
    redis_url: str, upstream: Upstream, what: str, said: dict[str, object], names: str
) -> None:
    """In a sentence that names the field; nothing is written."""
    async with desk(redis_url, upstream) as (operator, _, _):
        refused = await operator.decide(what, **said)
        assert refused.status in (400, 422)
        assert names in refused.json["detail"]
        assert (await operator.look("state"))["blocked"] == []
    with redis.Redis.from_url(redis_url) as store:
        assert store.keys("*control") == store.keys("*blocked") == []


async def test_the_block_list_has_an_end(redis_url: str, upstream: Upstream) -> None:
    """Ten thousand are blocked at most; those whose time is over make room."""
    async with desk(redis_url, upstream) as (operator, _, _):
        key, far = "keyturn:{main}:blocked", 4_000_000_000_000
        with redis.Redis.from_url(redis_url) as store:
            store.zadd(key, {f"{number:022d}": far for number in range(10_000)})
            assert (await operator.decide("block", visitor="A" * 22)).code == "invalid_request"
            good(await operator.decide("block", visitor=f"{7:022d}"))
            assert len((await operator.look("state"))["blocked"]) == 200
            store.zadd(key, {f"{9:022d}": 1})
            good(await operator.decide("block", visitor="A" * 22))
            assert store.zcard(key) == 10_000


async def test_every_decision_leaves_a_line(
    redis_url: str, upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    """Who, what and for whom, at a level that every log shows; never the token."""
    async with desk(redis_url, upstream) as (operator, _, _):
        with caplog.at_level(logging.WARNING, "keyturn"):
            good(await operator.decide("pause"))
            good(await operator.decide("cap", usd="2"))
            good(await operator.decide("block", visitor="A" * 22, hours=2))
    lines = [line for line in caplog.messages if line.startswith("operator ")]
    assert [line.partition(" did=")[2] for line in lines] == [
        "pause",
        "cap to=2000000 µUSD",
        f"block visitor={'A' * 22} hours=2",
    ]
    assert all(line.startswith("operator by=token request_id=") for line in lines)
    assert TOKEN not in caplog.text


async def test_the_state_tells_of_the_streams(redis_url: str, upstream: Upstream) -> None:
    """Of all workers together, as each told a few seconds ago."""
    async with (
        two_workers(redis_url, upstream, max_streams=7) as workers,
        operating(workers[0]) as operator,
        visiting(workers[1]) as visitor,
    ):

        async def told() -> dict[str, int]:
            for worker in workers:
                await recorder_of(worker).write()
            found: dict[str, int] = (await operator.look("state"))["streams"]
            return found

        assert await told() == {"open": 0, "most": 14, "workers": 2}
        body, headers = visitor.body(play(hang_after=1)), visitor.headers()
        async with visitor.session.post(
            visitor.url + visitor.path, data=body, headers=headers
        ) as answer:
            assert answer.status == 200
            assert await told() == {"open": 1, "most": 14, "workers": 2}


def recorder_of(server: Server) -> Recorder:
    """What writes the history of this worker."""
    console = server.keyturn.console
    assert console
    return console.recorder


async def test_a_patient_store_leaves_the_operator_time_to_wait(
    redis_url: str, upstream: Upstream
) -> None:
    """Where one command may take longer than all for the operator may, many at once are served."""
    settings = settings_for(redis_url, upstream, redis_timeout_ms=5000, redis_deadline_ms=15000)
    async with serving(settings) as server, operating(server) as operator:
        asked = [operator.ask("GET", API + "state") for _ in range(8)]
        assert {answer.status for answer in await asyncio.gather(*asked)} == {200}
