"""Three replicas behind a proxy are restarted one after the other, and no visitor notices."""

import asyncio
import signal
from pathlib import Path

import pytest

from tests.deploy.proxy_stage import HOST, PROXIES, Changes, needs, nginx
from tests.deploy.rolling_stage import crowd_at, restart_all, three_replicas, times_asked
from tests.faults.test_drain import in_flight
from tests.stage import Upstream, Visitor, eventually, serving, settings_with
from tests.wire import free_port

each = pytest.mark.parametrize(
    "name", [pytest.param(each, marks=needs(each)) for each in ("nginx", "haproxy")]
)
pytestmark = pytest.mark.timeout(240)  # nine servers start
ENOUGH = 100  # turns, so that there is something that could fail


@each
async def test_no_turn_fails_and_none_is_asked_twice(
    redis_url: str, upstream: Upstream, tmp_path: Path, name: str
) -> None:
    """By SIGTERM: each turn is answered to its end, upstream is asked once for it, all settled."""
    async with three_replicas(tmp_path, redis_url, upstream) as replicas:
        with PROXIES[name](tmp_path / name, [each.url for each in replicas]) as proxy:
            async with crowd_at(proxy) as crowd:
                codes = await restart_all(replicas, signal.SIGTERM)
        await eventually(lambda: _none_in_flight(redis_url))
    assert codes == [0, 0, 0]
    assert crowd.failed == {}
    assert crowd.asked["ok"] > ENOUGH
    asked = times_asked(await upstream.books())
    assert set(asked.values()) == {1}
    assert len(asked) == crowd.asked["ok"]


@each
async def test_killed_replicas_take_turns_with_them(
    redis_url: str, upstream: Upstream, tmp_path: Path, name: str
) -> None:
    """The control, by SIGKILL: some turns fail; even so the proxy sends none of them twice."""
    async with three_replicas(tmp_path, redis_url, upstream) as replicas:
        with PROXIES[name](tmp_path / name, [each.url for each in replicas]) as proxy:
            async with crowd_at(proxy) as crowd:
                await restart_all(replicas[:1], signal.SIGKILL)
    assert sum(crowd.failed.values()) > 0
    assert set(times_asked(await upstream.books()).values()) == {1}


@needs("nginx")
async def test_a_proxy_that_repeats_what_it_sent_pays_twice(
    redis_url: str, upstream: Upstream, tmp_path: Path
) -> None:
    """The control of what nginx.conf leaves out: with non_idempotent a killed replica's chats are
    sent to the next one, and those that begin a chain reach upstream again."""
    repeat = ("proxy_next_upstream error", "proxy_next_upstream non_idempotent error")
    async with three_replicas(tmp_path, redis_url, upstream) as replicas:
        urls = [each.url for each in replicas]
        with PROXIES["nginx"](tmp_path / "nginx", urls, [repeat]) as proxy:
            async with asyncio.TaskGroup() as group, proxy.visiting() as visitor:
                silent = '{"play": {"hold_ms": 20000}}'
                turns = [group.create_task(visitor.say(silent)) for _ in range(6)]
                await eventually(lambda: _asked(upstream, 6))
                await restart_all(replicas[:1], signal.SIGKILL)
                await eventually(lambda: _asked(upstream, 7))
                for turn in turns:
                    turn.cancel()
    assert len(await upstream.books()) > 6


MARKING = (" max_fails=0;", " max_fails=1;")


@needs("nginx")
@pytest.mark.parametrize(("changes", "status"), [((), 200), ((MARKING,), 502)])
async def test_a_replica_that_is_back_is_asked_at_once(
    redis_url: str, upstream: Upstream, tmp_path: Path, changes: Changes, status: int
) -> None:
    """All three were away a moment ago, and one is back. The control, which marks who fails as
    nginx does by default, still answers that there is nobody."""
    ports = [free_port() for _ in range(3)]
    settings = settings_with(redis_url=redis_url, openai_base_url=upstream.url)
    with nginx(tmp_path / "nginx", [f"http://{HOST}:{each}" for each in ports], changes) as proxy:
        async with proxy.visiting() as visitor:
            assert await _health(visitor) == 502
            async with serving(settings, port=ports[1]):
                assert await _health(visitor) == status


async def _health(visitor: Visitor) -> int:
    async with visitor.session.get(visitor.url + "/healthz") as answer:
        return answer.status


async def _asked(upstream: Upstream, times: int) -> bool:
    return len(await upstream.books()) >= times


async def _none_in_flight(redis_url: str) -> bool:
    return not in_flight(redis_url)
