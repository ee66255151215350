"""Scripts on connections of their own."""

import asyncio
from typing import cast

import pytest
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from security.wire import OwnScripts, packed

ECHO = packed("ECHO", "grüße")
WAIT = packed("BLPOP", "nothing", "0.1")


async def crowd(store: OwnScripts) -> int:
    """Ask five times at once, so that five connections are open."""
    await asyncio.gather(*(store.ask(WAIT) for _ in range(5)))
    return len(store._idle)


async def test_a_command_is_packed_as_redis_reads_it(real_store: OwnScripts) -> None:
    """Words are counted in bytes; numbers are written out."""
    assert await real_store.ask(ECHO) == "grüße".encode()
    await real_store.ask(packed("SET", "number", -5))
    assert await real_store.get("number") == b"-5"


async def test_a_script_replies_in_fields(real_store: OwnScripts) -> None:
    """Also where the store has not seen it yet, and again where it has."""
    script = real_store.register_script("return table.concat({ KEYS[1], ARGV[1], '' }, '\\n')")
    for _ in range(2):
        assert await script(["key"], [7]) == [b"key", b"7", b""]


async def test_a_connection_is_used_again(real_store: OwnScripts) -> None:
    """One after another need one connection; a refusal of the store's leaves it as it is."""
    for _ in range(3):
        await real_store.ask(ECHO)
    with pytest.raises(ResponseError):
        await real_store.ask(packed("NO-SUCH-COMMAND"))
    assert await real_store.ask(ECHO)
    assert len(real_store._idle) == 1


async def test_where_one_connection_was_lost_none_is_trusted(real_store: OwnScripts) -> None:
    """After a store was away one call fails, and not one for each connection that was open."""
    assert await crowd(real_store) == 5
    await real_store.client_kill_filter(_type="normal", skipme=True)
    with pytest.raises(RedisConnectionError):
        await real_store.ask(ECHO)
    assert await crowd(real_store) == 5


async def test_the_librarys_own_connections_are_not_trusted_either(real_store: OwnScripts) -> None:
    """Else the next question, which nobody asks twice, would find the store lost."""
    await asyncio.gather(real_store.ping(), real_store.ping(), real_store.ask(ECHO))
    await real_store.client_kill_filter(_type="normal", skipme=True)
    with pytest.raises(RedisConnectionError):
        await real_store.ask(ECHO)
    assert not any(each.is_connected for each in idle_of(real_store))


def idle_of(store: OwnScripts) -> list[AbstractConnection]:
    """The library's connections that nobody uses."""
    found = cast(list[AbstractConnection | None], store.connection_pool._available_connections)
    return [each for each in found if each]


async def test_a_call_that_is_given_up_leaves_no_reply_behind(real_store: OwnScripts) -> None:
    """The next one on its connection gets its own reply."""
    call = asyncio.create_task(real_store.ask(WAIT))
    await asyncio.sleep(0)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(call, 0.02)
    assert await real_store.ask(ECHO) == "grüße".encode()
    assert len(real_store._idle) == 1
