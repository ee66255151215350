"""One exchange over ASGI: bounds and deadlines both ways, and hang-ups noticed while waiting."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from starlette.types import Message

from exchange import HEAD_BYTES, OURS, ClientGone, Exchange, SlowReader
from patience import Patience
from security.errors import Rejection

SHORT = 0.05
PATIENCE = Patience(body=SHORT, write=SHORT)
GONE: Message = {"type": "http.disconnect"}


def piece(body: bytes, more: bool = True) -> Message:
    """A part of a request's body."""
    return {"type": "http.request", "body": body, "more_body": more}


class Client:
    """The other end: gives its messages one by one, then hangs; remembers what it was sent."""

    def __init__(self, *messages: Message) -> None:
        self.messages = list(messages)
        self.got: list[Message] = []
        self.hung_up = asyncio.Event()

    async def receive(self) -> Message:
        """The next message."""
        if self.messages:
            return self.messages.pop(0)
        await self.hung_up.wait()
        return GONE

    async def send(self, message: Message) -> None:
        """Take a message."""
        self.got.append(message)


def exchange(client: Client | None = None, *headers: tuple[bytes, bytes], **scope: Any) -> Exchange:
    """An exchange with a client that sent these headers."""
    client = client or Client()
    whole = {"headers": list(headers), "keyturn.request_id": "a-label", **scope}
    return Exchange(whole, client.receive, client.send, PATIENCE)


async def refusal(read: Awaitable[Any]) -> str:
    """The code with which reading is refused."""
    with pytest.raises(Rejection) as raised:
        await read
    return raised.value.code


# Reading


async def test_a_body_is_put_together() -> None:
    """All pieces, in order, up to the limit exactly."""
    client = Client(piece(b"one "), piece(b""), piece(b"two", more=False))
    assert await exchange(client).read_body(7) == b"one two"


@pytest.mark.parametrize("declared", [None, b"1", b"junk", b"-5", b"9" * 5000, "²".encode()])
async def test_a_body_is_counted_whatever_it_says_of_itself(declared: bytes | None) -> None:
    """One byte over the limit is refused, and no more than that is taken in."""
    client = Client(piece(b"x" * 7), piece(b"x"), piece(b"never read", more=False))
    headers = [(b"content-length", declared)] if declared else []
    assert await refusal(exchange(client, *headers).read_body(7)) == "payload_too_large"
    assert len(client.messages) == 1


async def test_a_body_that_is_said_to_be_too_large_is_not_read() -> None:
    """The declared length is enough to refuse, before the client is asked to go on."""
    client = Client(piece(b"x", more=False))
    asked = exchange(client, (b"content-length", b"8")).read_body(7)
    assert await refusal(asked) == "payload_too_large"
    assert len(client.messages) == 1


async def test_a_body_has_one_deadline_for_all_of_it() -> None:
    """A client that drips is refused as late as one that is silent, not later."""

    async def drip() -> Message:
        await asyncio.sleep(SHORT / 10)
        return piece(b".")

    for receive in (Client().receive, drip):
        started = time.monotonic()
        slow = Exchange({"headers": []}, receive, Client().send, PATIENCE)
        assert await refusal(slow.read_body(10_000)) == "request_timeout"
        assert SHORT <= time.monotonic() - started < SHORT * 100  # all of them would take ten times


async def test_a_client_that_leaves_while_it_sends_is_gone() -> None:
    """Half a body is nobody's request."""
    with pytest.raises(ClientGone):
        await exchange(Client(piece(b"half"), GONE)).read_body(1000)


JSON = b"application/json"


@pytest.mark.parametrize(
    "kind",
    [
        JSON,
        b"Application/JSON",
        b"application/json;charset=utf-8",
        b'application/json; charset="UTF-8"',
        b"application/json ; charset=utf-8",
        b"application/json;",
    ],
)
def test_json_in_utf_8_is_taken(kind: bytes) -> None:
    """Case and spacing of the content type make no difference."""
    exchange(None, (b"content-type", kind)).require_json()


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"content-type", b"text/plain")],
        [(b"content-type", b"application/jsonx")],
        [(b"content-type", b"application/json; charset=latin-1")],
        [(b"content-type", b"application/json; version=1")],
        [(b"content-type", b"application/json; charset=utf-8; version=1")],
        [(b"content-type", JSON), (b"content-type", JSON)],
        [(b"content-type", JSON), (b"content-encoding", b"gzip")],
        [(b"content-type", JSON), (b"content-encoding", b"identity")],
        [(b"content-type", JSON), (b"content-encoding", b"")],
    ],
)
def test_anything_else_is_no_json(headers: list[tuple[bytes, bytes]]) -> None:
    """A page of another origin can send text without a preflight; it gets no further."""
    with pytest.raises(Rejection, match="unsupported_media_type"):
        exchange(None, *headers).require_json()


@pytest.mark.parametrize("name", OURS)
def test_a_header_of_ours_may_come_once(name: bytes) -> None:
    """Which of two would count is not left to chance."""
    exchange(None, (name, b"one"), (b"other", b"1"), (b"other", b"2")).require_single_headers()
    with pytest.raises(Rejection, match="header_repeated") as raised:
        exchange(None, (name, b"one"), (name, b"one")).require_single_headers()
    assert raised.value.param == name.decode()


def test_a_head_is_bounded() -> None:
    """Names, values, path and query count together, up to 16 KiB."""
    rest = {"raw_path": b"/" * 10, "query_string": b"q" * 10}
    fits = (b"name", b"v" * (HEAD_BYTES - 20 - 8))
    exchange(None, fits, **rest).require_bounded_head()
    with pytest.raises(Rejection, match="headers_too_large"):
        exchange(None, (b"names", fits[1]), **rest).require_bounded_head()


# Waiting


async def test_a_hang_up_ends_the_wait() -> None:
    """Whatever we wait for is cancelled as soon as the client is gone."""
    client = Client()
    waiting = exchange(client)
    asyncio.get_running_loop().call_later(SHORT, client.hung_up.set)
    with pytest.raises(ClientGone):
        async with asyncio.timeout(5), waiting.present():
            await asyncio.Event().wait()
    assert not _others()


async def test_a_client_that_stays_is_not_disturbed() -> None:
    """Nothing is left behind by a wait that ended well, or in an error of its own."""
    for failure in (None, KeyError("ours")):
        with pytest.raises(KeyError) if failure else contextlib.nullcontext():
            async with exchange(Client(piece(b"late", more=False))).present():
                await asyncio.sleep(0)
                if failure:
                    raise failure
        await asyncio.sleep(0)
        assert not _others()


async def test_a_deadline_is_not_taken_for_a_hang_up() -> None:
    """A `TimeoutError` of the caller's passes, inside the scope and around it."""
    with pytest.raises(TimeoutError):
        async with exchange().present(), asyncio.timeout(SHORT):
            await asyncio.Event().wait()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(SHORT), exchange().present():
            await asyncio.Event().wait()


@pytest.mark.parametrize("also_gone", [True, False])
async def test_a_shutdown_is_not_taken_for_a_hang_up(also_gone: bool) -> None:
    """Who cancels the task has it cancelled, even while the client hangs up."""
    client = Client()

    async def wait() -> None:
        async with exchange(client).present():
            await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    if also_gone:
        client.hung_up.set()
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


async def test_a_hang_up_and_a_deadline_at_once_are_a_hang_up() -> None:
    """There is nobody left to be told of a timeout."""
    client = Client()

    async def wait() -> None:
        async with exchange(client).present(), asyncio.timeout(SHORT):
            client.hung_up.set()
            time.sleep(SHORT * 1.2)  # noqa: ASYNC251 - both are due when the loop goes on
            await asyncio.Event().wait()

    with pytest.raises(ClientGone):
        await wait()


def _others() -> "set[asyncio.Task[Any]]":
    return asyncio.all_tasks() - {asyncio.current_task()}


# Answering


async def test_an_answer_is_a_head_parts_and_an_end() -> None:
    """Every part leaves as it was given, and only the end says that it is the end."""
    client = Client()
    answer = exchange(client)
    started = [answer.started]
    await answer.start(200, [(b"a", b"b")])
    assert [*started, answer.started] == [False, True]
    await answer.write(b"one")
    await answer.end(b"two")
    head, first, last = client.got
    assert (head["status"], head["headers"]) == (200, [(b"a", b"b")])
    assert (first["body"], first["more_body"]) == (b"one", True)
    assert (last["body"], last.get("more_body", False)) == (b"two", False)


Say = Callable[[Exchange], Awaitable[None]]


@pytest.mark.parametrize(
    "say",
    [lambda e: e.start(200, []), lambda e: e.write(b"x"), lambda e: e.end()],
    ids=["head", "part", "end"],
)
async def test_a_client_that_takes_nothing_is_slow(say: Say) -> None:
    """Each message has its deadline, after which the reader counts as slow."""

    async def never(_: Message) -> None:
        await asyncio.Event().wait()

    with pytest.raises(SlowReader):
        await say(Exchange({"headers": []}, Client().receive, never, PATIENCE))


async def test_a_timeout_of_the_server_is_not_a_slow_client() -> None:
    """Only our own deadline makes a `SlowReader`."""

    async def times_out(_: Message) -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        await Exchange({"headers": []}, Client().receive, times_out, PATIENCE).write(b"x")


async def test_a_connection_can_be_cut_where_the_server_offers_it() -> None:
    """The abort of the scope's extensions is called; without one nothing happens."""
    cuts = []
    offered = {"keyturn.abort": lambda: cuts.append("cut")}
    assert exchange(None, extensions=offered).abort()
    assert not exchange(None, extensions={}).abort()
    assert not exchange().abort()
    assert cuts == ["cut"]


async def test_a_hurry_shortens_the_wait_and_never_lengthens_it() -> None:
    """One second at most for the last words."""
    for given, left in ((15.0, 1), (0.5, 0.5)):
        client = Client()
        hurried = Exchange({"headers": []}, client.receive, client.send, Patience(write=given))
        hurried.hurry()
        assert hurried.patience.write == left
