"""Where a stream ends: upstream has to say so, and after that nothing can fail it."""

import pytest
from aiohttp import web

from completions.grammars import scanner_for
from completions.relay import relay_stream
from security.errors import UpstreamFailure
from tests.stage import Server, serving, settings_with, visiting
from tests.wire import ByHand, Spoken, event, streaming, upstream_by_function

ERRORS = {
    "an error": b'data: {"error":{"message":"no"}}\n\n',
    "a named error": b"event: error\ndata: no\n\n",
}


class Source:
    """What upstream sends, piece by piece."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = [*pieces]

    async def readany(self) -> bytes:
        """The next piece, b"" after the last."""
        return self._pieces.pop(0) if self._pieces else b""


class Sink:
    """An answer that nobody reads."""

    async def write(self, data: bytes) -> None:
        """Take it."""


async def relay(spoken: Spoken, *pieces: bytes) -> None:
    """Relay these pieces."""
    scanner = scanner_for(spoken.path.removeprefix("/v1/"), keep_usage=True)
    await relay_stream(Source(*pieces), Sink(), scanner, 60)  # type: ignore[arg-type]


async def test_a_relay_returns_only_from_a_stream_that_ended_well(spoken: Spoken) -> None:
    """Upstream has to say that it was done; a connection that merely ends is a failure."""
    one = spoken.word("one")
    for pieces in ([one], [one + spoken.last[:-1]], [], [b"data: no json\n\n", spoken.end]):
        with pytest.raises(UpstreamFailure, match="upstream_unavailable"):
            await relay(spoken, *pieces)


@pytest.mark.parametrize(
    "late",
    [b"data: no json\n\n", b"half an event", *ERRORS.values()],
    ids=["no JSON", "half an event", *ERRORS],
)
async def test_nothing_that_follows_the_end_can_fail_it(spoken: Spoken, late: bytes) -> None:
    """All was said: whatever comes behind it, at once or later, no error is due any more."""
    await relay(spoken, spoken.word("one") + spoken.end + late)
    await relay(spoken, spoken.word("one") + spoken.end, late)


async def test_a_finished_stream_may_lack_its_done(impatient: Server, hand: ByHand) -> None:
    """Servers that end with a finish_reason and no [DONE] are passed on as they are."""
    stream = event("one") + event("", finish="stop")
    async with visiting(impatient) as visitor, streaming(visitor, hand) as (answer, call):
        await call.end(stream)
        assert await answer.read() == stream


async def test_a_connection_to_upstream_is_used_again(redis_url: str, spoken: Spoken) -> None:
    """Streams that end well cost one connection between them."""
    peers, stream = [], spoken.word("one") + spoken.end

    async def complete(request: web.Request) -> web.StreamResponse:
        peers.append(request.transport and request.transport.get_extra_info("peername"))
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(stream)
        return response

    async with upstream_by_function(complete) as url:
        settings = settings_with(redis_url=redis_url, openai_base_url=url)
        async with serving(settings) as server, visiting(server, path=spoken.path) as visitor:
            for _ in range(5):
                assert (await visitor.say()).body == stream
    assert (len(peers), len(set(peers))) == (5, 1)
