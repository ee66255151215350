"""Scripts on one connection of their own."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
import uvloop
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from security.store import connect
from security.wire import OwnScripts
from security.words import packed
from tests.stage import eventually


def command(*words: str) -> bytes:
    """A command as it is sent."""
    return f"*{len(words)}\r\n{packed(words)}".encode()


ECHO = command("ECHO", "grüße")
GREETED = "grüße".encode()


async def crowd(store: OwnScripts, count: int = 20) -> list[bytes | BaseException]:
    """Ask so many times at once."""
    asked = [store.ask(command("ECHO", f"{number}")) for number in range(count)]
    return await asyncio.gather(*asked, return_exceptions=True)


def own(store: OwnScripts, count: int = 20) -> list[bytes]:
    """What each of a crowd is to be told."""
    return [f"{number}".encode() for number in range(count)]


async def clients(store: OwnScripts) -> set[str]:
    """The connections that the store has, by name."""
    return {each["id"] for each in await store.client_list()}


async def test_a_script_replies_in_fields(real_store: OwnScripts) -> None:
    """Also where the store has not seen it yet, and again where it has."""
    script = real_store.register_script("return table.concat({ KEYS[1], ARGV[1], '' }, '\\n')")
    for _ in range(2):
        assert await script(["kéy"], [7]) == ["kéy".encode(), b"7", b""]


async def test_many_share_one_connection(real_store: OwnScripts) -> None:
    """Each has its own reply, and a refusal of the store's leaves the connection as it is."""
    assert await real_store.ask(ECHO) == GREETED
    before = await clients(real_store)
    assert await crowd(real_store) == own(real_store)
    with pytest.raises(ResponseError, match="unknown command"):
        await real_store.ask(command("NO-SUCH-COMMAND"))
    assert await real_store.ask(ECHO) == GREETED
    assert await clients(real_store) == before


async def test_the_first_of_many_connects_for_all(real_store: OwnScripts) -> None:
    """Who comes while it connects waits for it."""
    before = await clients(real_store)
    assert await crowd(real_store) == own(real_store)
    assert len(await clients(real_store) - before) <= 1


async def test_a_connection_lost_in_between_costs_nobody_a_call(real_store: OwnScripts) -> None:
    """It is noticed when it happens, and the next one connects anew."""
    assert await real_store.ask(ECHO) == GREETED
    lost = real_store._pipe
    await real_store.client_kill_filter(_type="normal", skipme=True)
    assert lost
    await eventually(lambda: _is(lost.is_closed))
    assert await crowd(real_store) == own(real_store)


async def _is(truth: bool) -> bool:
    return truth


async def test_a_connection_lost_under_a_crowd_is_lost_to_all(real_store: OwnScripts) -> None:
    """Whose reply has not come is told so, whoever asked; the next ones are served."""
    await real_store.ask(ECHO)
    await real_store.client_pause(300, all=True)
    calls = [asyncio.create_task(real_store.ask(ECHO)) for _ in range(5)]
    await eventually(lambda: _is(len(_pipe(real_store)._sent) == 5))
    _pipe(real_store).connection_lost(None)
    failed = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(each) for each in failed] == [RedisConnectionError] * 5
    assert await real_store.ask(ECHO) == GREETED


def _pipe(store: OwnScripts) -> Any:
    assert store._pipe
    return store._pipe


async def test_the_librarys_own_connections_are_not_trusted_either(real_store: OwnScripts) -> None:
    """Else the next question, which nobody asks twice, would find the store lost."""
    await asyncio.gather(real_store.ping(), real_store.ping(), real_store.ask(ECHO))
    await real_store.client_kill_filter(_type="normal", skipme=True)
    await eventually(lambda: _is(_pipe(real_store).is_closed))
    await real_store.ask(ECHO)
    assert not any(each.is_connected for each in idle_of(real_store))


def idle_of(store: OwnScripts) -> list[AbstractConnection]:
    """The library's connections that nobody uses."""
    found = cast(list[AbstractConnection | None], store.connection_pool._available_connections)
    return [each for each in found if each]


async def test_a_call_that_is_given_up_leaves_no_reply_behind(real_store: OwnScripts) -> None:
    """Its reply is thrown away when it comes: the next one on the connection gets its own."""
    await real_store.ask(ECHO)
    pipe = real_store._pipe
    await real_store.client_pause(100, all=True)
    call = asyncio.create_task(real_store.ask(command("ECHO", "given up")))
    await eventually(lambda: _is(len(_pipe(real_store)._sent) == 1))
    call.cancel()
    assert await crowd(real_store) == own(real_store)
    assert call.cancelled()
    assert real_store._pipe is pipe


def test_a_reply_that_came_while_nobody_looked_is_not_late(redis_url: str) -> None:
    """A worker that was busy reads what has come before it judges: uvloop looks at timers first."""

    here, there = socket.socketpair()

    def be_busy() -> None:
        here.recv(1)
        time.sleep(0.5)

    async def ask() -> bytes:
        store = cast(OwnScripts, connect(redis_url, timeout=0.25, connect_timeout=5))
        try:
            await store.client_pause(100, all=True)
            asked = asyncio.create_task(store.ask(ECHO))
            await eventually(lambda: _is(bool(store._pipe and store._pipe._sent)))
            asyncio.get_running_loop().add_reader(here, be_busy)
            there.send(b"!")
            return await asked
        finally:
            await store.aclose()

    with here, there, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(ask()) == GREETED


async def test_a_reply_that_is_late_ends_the_connection(redis_url: str) -> None:
    """Past the limit of one command all in flight fail, and their replies reach nobody."""
    store = cast(OwnScripts, connect(redis_url, timeout=0.1, connect_timeout=1))
    async with store:
        await store.ask(ECHO)
        late, began = store._pipe, asyncio.get_running_loop().time()
        await store.client_pause(700, all=True)
        failed = await crowd(store)
        assert {type(each) for each in failed} == {RedisTimeoutError}
        assert asyncio.get_running_loop().time() - began < 0.5
        await eventually(lambda: serves(store))
        assert await crowd(store) == own(store)
        assert store._pipe is not late


async def serves(store: OwnScripts) -> bool:
    """Whether it replies again."""
    try:
        return await store.ask(ECHO) == GREETED
    except (RedisConnectionError, RedisTimeoutError):
        return False


async def test_the_whole_deadline_is_kept_too(real_store: OwnScripts) -> None:
    """A caller who has less time left than a command may take is told when it is over."""
    await real_store.ask(ECHO)
    await real_store.client_pause(700, all=True)
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        await real_store.ask(ECHO, began + 0.05)
    assert time.monotonic() - began < 0.5
    assert await crowd(real_store) == own(real_store)


async def test_nothing_is_left_of_a_client_that_is_closed(redis_url: str) -> None:
    """Who still waits is told, no task goes on, and no timer keeps the loop busy."""
    store = cast(OwnScripts, connect(redis_url, timeout=5, connect_timeout=1))
    await store.ask(ECHO)
    pipe = _pipe(store)
    await store.client_pause(200, all=True)
    calls = [asyncio.create_task(store.ask(ECHO)) for _ in range(3)]
    await eventually(lambda: _is(len(pipe._sent) == 3))
    tasks = asyncio.all_tasks() - {*calls}
    await store.aclose()
    failed = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(each) for each in failed] == [RedisConnectionError] * 3
    assert asyncio.all_tasks() == tasks
    assert pipe._timer.cancelled()


# -- a server by hand, which says what no Redis says


class ByHand:
    """A server that greets like Redis, and to all that it is asked says the same, in pieces."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = pieces
        self.asked: list[bytes] = []  # as it came, read by read

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Speak with one client."""
        while data := await reader.read(1 << 16):
            if b"HELLO" in data:
                writer.write(b"+OK\r\n")
                continue
            self.asked.append(data)
            for piece in self.pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
        writer.close()

    @asynccontextmanager
    async def client(self, directory: Path) -> AsyncIterator[OwnScripts]:
        """A client of it."""
        path = directory / "by-hand"
        async with await asyncio.start_unix_server(self.serve, path):
            store = connect(f"unix://{path}", timeout=5, connect_timeout=5)
            yield cast(OwnScripts, store)
            await store.aclose()


async def test_all_of_one_turn_of_the_loop_leaves_at_once(tmp_path: Path) -> None:
    """The commands of a crowd are one write, and whoever left before it is not asked for."""
    hand = ByHand(b"$1\r\n1\r\n")
    async with hand.client(tmp_path) as store:
        assert await store.ask(ECHO) == b"1"
        hand.pieces = (b"$1\r\n1\r\n" * 3,)
        crowd = [asyncio.create_task(store.ask(command("ECHO", each))) for each in "defg"]
        await asyncio.sleep(0)  # all have asked, and nothing is sent
        crowd[1].cancel()
        await asyncio.wait(crowd)
    assert hand.asked[-1] == command("ECHO", "d") + command("ECHO", "f") + command("ECHO", "g")


async def test_a_reply_may_come_in_pieces(tmp_path: Path) -> None:
    """Wherever the network cuts it, it is read whole, and an error too."""
    said = b"$7\r\na\r\nb$1\r\r\n-ERR no\r\n"
    for at in range(1, len(said)):
        hand = ByHand(said[:at], said[at:])
        async with hand.client(tmp_path) as store:
            told = await asyncio.gather(
                *(store.ask(ECHO) for _ in range(2)), return_exceptions=True
            )
            assert told[0] == b"a\r\nb$1\r"
            assert isinstance(told[1], ResponseError)


@pytest.mark.parametrize(
    "said", [b":1\r\n", b"$-1\r\n", b"_\r\n", b"*0\r\n", b"$x\r\n", b"\r\n", b"nonsense\r\n"]
)
async def test_what_no_script_replies_ends_the_connection(tmp_path: Path, said: bytes) -> None:
    """It is nobody's reply, and nor is what comes behind it."""
    hand = ByHand(said, b"$1\r\n1\r\n")
    async with hand.client(tmp_path) as store:
        told = await asyncio.gather(store.ask(ECHO), store.ask(ECHO), return_exceptions=True)
        assert [type(each) for each in told] == [RedisConnectionError] * 2
        hand.pieces = (b"$1\r\n1\r\n",)
        assert await store.ask(ECHO) == b"1"


async def test_a_reply_that_nobody_asked_for_ends_the_connection(tmp_path: Path) -> None:
    """Else it would be the next one's."""
    hand = ByHand(b"$1\r\n1\r\n$1\r\n2\r\n")
    async with hand.client(tmp_path) as store:
        assert await store.ask(ECHO) == b"1"
        await eventually(lambda: _is(_pipe(store).is_closed))
        assert await store.ask(ECHO) == b"1"


@pytest.mark.parametrize("line", [b"-READONLY You can't", b"-LOADING it", b"-NOAUTH wh\xff"])
async def test_a_store_that_cannot_serve_is_connected_to_anew(tmp_path: Path, line: bytes) -> None:
    """Who is refused so is told why; the next one is on a new connection."""
    hand = ByHand(line + b"\r\n")
    async with hand.client(tmp_path) as store:
        with pytest.raises(RedisError, match=line.decode(errors="replace").split()[1]):
            await store.ask(ECHO)
        assert store._pipe is None
        hand.pieces = (b"$1\r\n1\r\n",)
        assert await store.ask(ECHO) == b"1"
