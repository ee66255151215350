"""Sentinels and clusters as stores: found, bounded, looked at where our keys are, and explained."""

import asyncio
import json
import re
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff

from security.sentinel import _Sentinels
from security.store import CONNECTIONS, connect
from tests.check_stage import check
from tests.command_stage import CANARY, SERVER_PY, run
from tests.faults.money_stage import SLOWLY
from tests.faults.topology_stage import (
    SERVICE,
    SLOT,
    TOPOLOGIES,
    Group,
    Node,
    certify,
    cluster,
    sentinels,
)
from tests.stage import Server, Upstream, Visitor, eventually, serving, settings_with, visiting

Topology = Callable[[Path, Path | None], AbstractContextManager[Group]]
NEVER = Retry(NoBackoff(), 0)
SPEND = (*SERVER_PY, "spend", "--json")


@pytest.fixture(scope="module", params=TOPOLOGIES)
def group(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Group]:
    """Several servers, which these tests leave as they are."""
    with request.param(tmp_path_factory.mktemp("group")) as group:
        yield group


@asynccontextmanager
async def chat_on(
    url: str, upstream: Upstream, **said: Any
) -> AsyncIterator[tuple[Server, Visitor]]:
    """Keyturn before this store, and a visitor."""
    settings = settings_with(redis_url=url, openai_base_url=upstream.url, **{**SLOWLY, **said})
    async with serving(settings) as server, visiting(server) as visitor:
        yield server, visitor


async def test_turns_are_admitted_and_keys_are_where_they_belong(
    group: Group, upstream: Upstream
) -> None:
    """All that a chat leaves stands on the one server that holds our keys."""
    async with chat_on(group.url, upstream) as (_, visitor):
        for _turn in range(3):
            assert (await visitor.say()).status == 200
    holder = group.holder()
    assert holder.says("KEYS", "keyturn:{main}:spend:*")
    others = [node for node in group.nodes if node not in group.pair]
    assert not any(node.says("DBSIZE") for node in others)


async def test_scripts_are_loaded_again_where_they_were_forgotten(
    group: Group, upstream: Upstream
) -> None:
    """SCRIPT FLUSH on every server is not noticed by a visitor."""
    async with chat_on(group.url, upstream) as (_, visitor):
        assert (await visitor.say()).status == 200
        for node in group.nodes:
            node.says("SCRIPT FLUSH")
        assert (await visitor.say()).status == 200


async def test_a_crowd_opens_no_more_connections_than_may_be(
    group: Group, upstream: Upstream
) -> None:
    """200 visitors at once are served by a bounded number of connections to the one server."""
    async with chat_on(group.url, upstream) as (_, visitor):
        asked = [visitor.post(visitor.body(), visitor.headers()) for _ in range(200)]
        answers = await asyncio.gather(*asked)
        assert {answer.code for answer in answers} <= {None, "overloaded", "start_limited"}
        clients = group.holder().says("CLIENT LIST")
        ours = [each for each in clients if each["cmd"] == "evalsha"]
        assert 8 < len(ours) <= CONNECTIONS


async def test_safety_is_that_of_the_server_that_holds_our_keys(
    group: Group, upstream: Upstream
) -> None:
    """One that evicts is named in /readyz if it is ours, and no matter if it is another."""
    ours = group.holder()
    other = next(node for node in group.nodes if node != ours)
    async with chat_on(group.url, upstream) as (server, visitor):

        async def ready() -> tuple[int, str]:
            async with visitor.session.get(f"{server.url}/readyz") as answer:
                return answer.status, (await answer.json())["store"]

        for node, evicts in ((other, False), (ours, True)):
            node.config("maxmemory-policy", "allkeys-lru")
            status, said = await ready()
            node.config("maxmemory-policy", "noeviction")
            assert (status, "allkeys-lru" in said) == (503 if evicts else 200, evicts)
        assert await ready() == (200, "ok")


async def test_check_and_spend_work(group: Group, tmp_path: Path, upstream: Upstream) -> None:
    """Both find the store by the same URL, and see what visitors spent."""
    async with chat_on(group.url, upstream) as (_, visitor):
        assert (await visitor.say()).status == 200
    found = await asyncio.to_thread(check, tmp_path, REDIS_URL=group.url)
    assert found.code == 0, found.said
    name, script, clock = found.of("redis", "ok")
    assert re.fullmatch(r"(redis|valkey) \d+\.\d+\.\d+, REDIS_URL", name)
    assert "the admission script runs and writes" in script
    assert "apart" in clock
    came = await asyncio.to_thread(run, *SPEND, cwd=tmp_path, REDIS_URL=group.url)
    assert (came.returncode, came.stderr) == (0, "")
    assert json.loads(came.stdout)["spent_micro_usd"] > 0


async def test_another_tenant_lives_in_another_slot(group: Group, upstream: Upstream) -> None:
    """Its keys, clock and safety are found where that slot is."""
    settings = settings_with(redis_url=group.url, openai_base_url=upstream.url, tenant="other")
    async with serving(settings) as server, visiting(server) as visitor:
        assert (await visitor.say()).status == 200
        assert (await visitor.say()).status == 200
    assert sum(len(node.says("KEYS", "keyturn:{other}:spend:*")) for node in group.nodes) > 0


@pytest.mark.parametrize("topology", TOPOLOGIES)
async def test_by_tls(tmp_path: Path, upstream: Upstream, topology: Topology) -> None:
    """Where all speak TLS, Sentinels too: with the right authority in, without it nobody."""
    (tmp_path / "tls").mkdir()
    with topology(tmp_path / "tls", certify(tmp_path)) as group:
        trusting = f"{group.url}?ssl_ca_certs={tmp_path}/ca-cert.pem"
        async with chat_on(trusting, upstream) as (_, visitor):
            assert (await visitor.say()).status == 200
        async with chat_on(group.url, upstream) as (_, visitor):
            assert (await visitor.say()).code == "store_unavailable"


# -- Sentinels


async def test_a_sentinel_that_hangs_is_passed_over(tmp_path: Path, upstream: Upstream) -> None:
    """The first of the list does not answer: visitors are admitted all the same, from the start."""
    with sentinels(tmp_path) as group:
        group.sentinels[0].process.send_signal(signal.SIGSTOP)
        deadlines = {"redis_timeout_ms": 500, "redis_deadline_ms": 1200}
        async with chat_on(group.url, upstream, **deadlines) as (server, visitor):
            await eventually(lambda: gets_in(visitor))
            await server.keyturn.store.connection_pool.disconnect()
            assert (await visitor.say()).status == 200


@pytest.mark.parametrize("asked", [_Sentinels, Sentinel], ids=["ours", "the library's: a control"])
async def test_no_sentinel_is_forgotten(tmp_path: Path, asked: type[Sentinel]) -> None:
    """Where one hangs and many ask at once, all three are still known; the library loses one."""
    with sentinels(tmp_path) as group:
        group.sentinels[0].process.send_signal(signal.SIGSTOP)
        hosts = [("127.0.0.1", each.port) for each in group.sentinels]
        sentinel = asked(hosts, sentinel_kwargs={"socket_timeout": 0.3, "retry": NEVER})
        await asyncio.gather(*(sentinel.discover_master(SERVICE) for _ in range(8)))
        known = {each.connection_pool.connection_kwargs["port"] for each in sentinel.sentinels}
        await sentinel.aclose()
        assert len(known) == (3 if asked is _Sentinels else 2)


@pytest.mark.parametrize("is_ours", [True, False], ids=["ours", "the library's: a control"])
async def test_the_primary_of_before_is_left(tmp_path: Path, is_ours: bool) -> None:
    """Sentinels name another while the first is up, and connections to it are in use: once they
    are free again, none of them is used; the library goes on writing to both."""
    with sentinels(tmp_path) as group:
        hosts = [("127.0.0.1", each.port) for each in group.sentinels]
        library = Sentinel(hosts, sentinel_kwargs={"retry": NEVER})  # type: ignore[no-untyped-call]
        store = (
            connect(group.url, timeout=1, connect_timeout=1)
            if is_ours
            else library.master_for(SERVICE, retry=NEVER)
        )
        pool = store.connection_pool
        used = [await pool.get_connection() for _ in range(2)]
        name_another(group)
        used.append(await pool.get_connection())  # whoever needs a new one asks
        for each in used:
            await pool.release(each)
        said = await asyncio.gather(*(store.info("server") for _ in used))
        await store.aclose()
        await library.aclose()
        first, second = group.pair
        found = {each["tcp_port"] for each in said}
        assert found == ({second.port} if is_ours else {first.port, second.port})


def name_another(group: Group) -> None:
    """Let both be primaries, and Sentinels name the second."""
    second = group.pair[1]
    for each in group.sentinels:
        each.says("SENTINEL", "REMOVE", SERVICE)
    second.says("REPLICAOF", "NO", "ONE")
    for each in group.sentinels:
        each.says("SENTINEL", "MONITOR", SERVICE, "127.0.0.1", str(second.port), "2")


async def test_sentinels_with_a_password_of_their_own(tmp_path: Path, upstream: Upstream) -> None:
    """Whoever does not say it is not told where the primary is, and nobody gets in."""
    with sentinels(tmp_path) as group:
        for each in group.sentinels:
            each.says("ACL SETUSER", "default", "resetpass", ">guard")
        async with chat_on(f"{group.url}?sentinel_password=guard", upstream) as (_, visitor):
            assert (await visitor.say()).status == 200
        async with chat_on(group.url, upstream) as (_, visitor):
            assert (await visitor.say()).code == "store_unavailable"


def test_a_wrong_url_is_explained(tmp_path: Path) -> None:
    """`check` says what is wrong with it: the service's name, the scheme, the password."""
    (tmp_path / "group").mkdir()
    not_that = "it is not what the scheme of REDIS_URL says"
    with sentinels(tmp_path / "group") as group:
        for each in group.sentinels:
            each.says("SENTINEL SET", SERVICE, "auth-pass", "right")
        group.nodes[0].config("requirepass", "right")
        guard, server = (f"127.0.0.1:{each.port}" for each in (group.sentinels[0], group.nodes[0]))
        for url, why in (
            (f"redis+sentinel://{guard}/nobody", "its Sentinels do not answer, or know no primary"),
            (f"redis+sentinel://:right@{server}/{SERVICE}", "its Sentinels do not answer, or know"),
            (f"redis+cluster://:right@{server}", not_that),
            (f"redis+cluster://:{CANARY}@{server}", "it refuses the user or the password"),
            (f"redis+sentinel://:{CANARY}@{guard}/{SERVICE}", "it refuses the user or"),
        ):
            found = check(tmp_path, REDIS_URL=url)
            assert found.code == 1
            (said,) = found.of("redis", "fault")
            assert said.startswith(why), url
            assert CANARY not in found.said


# -- a cluster


async def test_a_slot_that_moves_is_followed(tmp_path: Path, upstream: Upstream) -> None:
    """While our slot is on its way nobody gets in; then they do, where it is, and money with it."""
    with cluster(tmp_path) as group:
        source = group.holder()
        target = next(n for n in group.nodes if n.is_primary() and n != source)
        async with chat_on(group.url, upstream) as (_, visitor):
            assert (await visitor.say()).status == 200
            begin_to_move(source, target)
            assert (await visitor.say()).code == "store_unavailable"
            finish_moving(source, target, group)
            await eventually(lambda: gets_in(visitor))
        assert target.says("KEYS", "keyturn:{main}:spend:*")
        assert not source.says("KEYS", "keyturn:{main}:*")


def begin_to_move(source: Node, target: Node) -> None:
    """What a resharding does first."""
    target.says("CLUSTER SETSLOT", SLOT, "IMPORTING", source.says("CLUSTER MYID"))
    source.says("CLUSTER SETSLOT", SLOT, "MIGRATING", target.says("CLUSTER MYID"))


def finish_moving(source: Node, target: Node, group: Group) -> None:
    """What it does last."""
    keys = source.says("CLUSTER GETKEYSINSLOT", SLOT, 100)
    source.says("MIGRATE", "127.0.0.1", target.port, "", 0, 1000, "KEYS", *keys)
    name = target.says("CLUSTER MYID")
    for node in (target, source, *group.nodes):
        if node.is_primary():
            node.says("CLUSTER SETSLOT", SLOT, "NODE", name)


async def gets_in(visitor: Visitor) -> bool:
    """Whether a turn is admitted."""
    return (await visitor.say()).status == 200
