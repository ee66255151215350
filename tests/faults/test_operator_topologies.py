"""The operator's page on Sentinels, on a cluster, and on a store in this process."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from embedded import Parts
from house import open_house
from operator_api import API
from security.store import MEMORY
from tests.faults.money_stage import SLOWLY
from tests.faults.topology_stage import TOPOLOGIES, Group
from tests.operator_stage import TOKEN, Operator, operating, session_of, settings_for
from tests.stage import Upstream, serving, settings_with, visiting

Topology = Callable[[Path], AbstractContextManager[Group]]


async def decide_all(operator: Operator) -> None:
    """Ask and decide everything that there is, and find each decision done."""
    cookie = await session_of(operator)
    quiet = Operator(operator.session, operator.url, None, {"Origin": operator.url})
    assert (await quiet.ask("GET", "/admin/api/state", Cookie=cookie)).status == 200
    (top,) = (await operator.look("visitors"))["top"]
    said = {
        "pause": {},
        "resume": {},
        "cap": {"usd": "3"},
        "block": {"visitor": top["visitor"]},
        "unblock": {"visitor": top["visitor"]},
        "revoke": {"visitor": top["visitor"]},
    }
    states = {}
    for what, body in said.items():
        answer = await operator.decide(what, **body)
        assert answer.status == 200, answer.body
        states[what] = answer.json
    assert set(said) == {name for name, (method, _) in API.items() if method == "POST"}
    assert (states["pause"]["paused"], states["resume"]["paused"]) == (True, False)
    assert states["cap"]["cap_micro_usd"] == 3_000_000
    assert [len(states[what]["blocked"]) for what in ("block", "unblock")] == [1, 0]
    assert states["revoke"]["revoked"] == 1
    assert (await operator.look("state"))["streams"]["workers"] == 1
    await operator.look("history?hours=24")
    more = {"Content_Type": "application/json", "Cookie": cookie}
    assert (await quiet.ask("POST", "/admin/api/logout", b"{}", **more)).status == 200
    assert (await quiet.ask("GET", "/admin/api/state", Cookie=cookie)).status == 401


@pytest.mark.parametrize("topology", TOPOLOGIES)
async def test_several_servers_are_as_one(
    topology: Topology, tmp_path: Path, upstream: Upstream
) -> None:
    """Everything is asked of the server that holds our keys."""
    with topology(tmp_path) as group:
        settings = settings_for(group.url, upstream, **SLOWLY)
        async with serving(settings) as server, operating(server) as operator:
            async with visiting(server) as visitor:
                assert (await visitor.say()).status == 200
            await decide_all(operator)


async def test_fakeredis_will_do_to_try_it_out(upstream: Upstream) -> None:
    """The same decisions, where no server was found."""
    settings = settings_with(admin_token=TOKEN, openai_base_url=upstream.url)
    parts = Parts(MEMORY, None, None, "fakeredis")
    async with open_house(settings, parts) as keyturn:
        assert keyturn.console
        control, recorder = keyturn.console.control, keyturn.console.recorder
        await recorder.write()
        assert (await keyturn.console.history.load()).workers == 1
        assert await control.pause() == await control.resume() == "done"
        assert await control.block("V" * 22, 60) == "done"
        assert [each.visitor for each in await control.blocked(9)] == ["V" * 22]
        assert await control.revoke("C" * 22) == "unknown"
        await control.require_try("A")
        await control.was_right("A")
