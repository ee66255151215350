"""Fixtures that are slow to make, shared; each test finds Redis and the books empty."""

import functools
import signal
from collections.abc import AsyncIterator, Iterator

import hypothesis
import pytest
import redis

from patience import Patience
from settings import Settings
from tests.stage import (
    PATIENT,
    Server,
    Upstream,
    Visitor,
    redis_process,
    serving,
    settings_with,
    upstream_process,
    visiting,
)
from tests.wire import BY_CHAT, BY_RESPONSES, ByHand, Spoken, upstream_by_hand

# On a fresh checkout hypothesis first builds its tables; on a busy machine everything takes longer.
hypothesis.settings.register_profile(
    "patient", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("patient")

# A program inherits what its starter ignores, as a job in the background does Ctrl-C.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def _redis_url() -> Iterator[str]:
    with redis_process("--maxmemory-policy", "noeviction") as url:
        yield url


@pytest.fixture
def redis_url(_redis_url: str) -> str:
    """A real redis-server, empty."""
    with redis.Redis.from_url(_redis_url) as client:
        client.flushall()
        client.config_resetstat()
    return _redis_url


@pytest.fixture(scope="session")
def _upstream() -> Iterator[Upstream]:
    with upstream_process() as upstream:
        yield upstream


@pytest.fixture
async def upstream(_upstream: Upstream) -> Upstream:
    """A real HTTP upstream with empty books."""
    await _upstream.forget()
    await _upstream.answer_keys()
    return _upstream


@pytest.fixture(scope="session")
def _other_upstream() -> Iterator[Upstream]:
    with upstream_process() as upstream:
        yield upstream


@pytest.fixture
async def other_upstream(_other_upstream: Upstream) -> Upstream:
    """A second one, for whoever must not see what the first sees."""
    await _other_upstream.forget()
    return _other_upstream


@functools.cache  # they are frozen, and some thousand tests want the same
def _generous(redis_url: str, upstream_url: str) -> Settings:
    urls = {"openai_base_url": upstream_url, "byok_base_url": upstream_url}
    return settings_with(redis_url=redis_url, **urls, **PATIENT)


@pytest.fixture
async def server(redis_url: str, upstream: Upstream) -> AsyncIterator[Server]:
    """Keyturn with generous limits, also for a Redis on a busy machine."""
    async with serving(_generous(redis_url, upstream.url)) as server:
        yield server


@pytest.fixture
async def visitor(server: Server) -> AsyncIterator[Visitor]:
    """A visitor without a token."""
    async with visiting(server) as visitor:
        yield visitor


@pytest.fixture
async def hand() -> AsyncIterator[ByHand]:
    """An upstream whose every answer the test gives."""
    async with upstream_by_hand() as hand:
        yield hand


@pytest.fixture
async def impatient(redis_url: str, hand: ByHand) -> AsyncIterator[Server]:
    """Keyturn before that upstream, with little patience for anybody."""
    settings = _generous(redis_url, hand.url)
    patience = Patience(body=0.5, write=0.5, keep_alive=0.2, connect=0.5, silence=0.6)
    async with serving(settings, patience) as server:
        yield server


@pytest.fixture
async def server_by_hand(redis_url: str, hand: ByHand) -> AsyncIterator[Server]:
    """Keyturn before that upstream, as patient as it is."""
    settings = _generous(redis_url, hand.url)
    async with serving(settings) as server:
        yield server


@pytest.fixture(params=[BY_CHAT, BY_RESPONSES], ids=["chat", "responses"])
def spoken(request: pytest.FixtureRequest) -> Spoken:
    """Each of the two APIs in turn."""
    found: Spoken = request.param
    return found
