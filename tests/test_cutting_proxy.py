"""The cutting proxy cuts what it is told to, and nothing else."""

import aiohttp
import pytest

from tests.cutting_proxy import cutting_proxy
from tests.stage import Server, Upstream, Visitor, at_rest, eventually, visiting

PREFLIGHT = {
    "Origin": "https://page.example",
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "content-type,keyturn-timestamp",
}


async def test_a_preflight_passes_while_a_cut_is_ahead(
    server: Server, visitor: Visitor, upstream: Upstream
) -> None:
    """On one connection: the preflight's answer is the server's, that of the POST is cut."""
    path = "/v1/chat/completions"
    async with visitor.session.options(server.url + path, headers=PREFLIGHT) as answer:
        direct = {name: answer.headers[name] for name in answer.headers if name[:7] == "Access-"}
    async with cutting_proxy(server.url) as proxy, visiting(proxy.url) as behind:
        proxy.cut_next("POST")
        async with behind.session.options(proxy.url + path, headers=PREFLIGHT) as answer:
            assert answer.status == 204
            assert direct == {name: answer.headers[name] for name in direct}
        with pytest.raises(aiohttp.ClientConnectionError):
            await behind.say("cut")
        assert (await behind.say("whole")).text == "whole whole whole "
        assert [carried.method for carried in proxy.carried] == ["OPTIONS", "POST", "POST"]
        assert [carried.cut for carried in proxy.carried] == [False, True, False]
        await eventually(lambda: at_rest(server))
        assert [entry["ended"] for entry in await upstream.books()] == ["done", "done"]


async def test_the_head_may_get_through(server: Server) -> None:
    """With `after_head` the client has the token, and an error for the rest."""
    async with cutting_proxy(server.url) as proxy, visiting(proxy.url) as behind:
        proxy.cut_next(after_head=True)
        url = f"{proxy.url}/v1/chat/completions"
        async with behind.session.post(url, data=behind.body(), headers=behind.headers()) as answer:
            assert answer.headers["Keyturn-Token"]
            with pytest.raises(aiohttp.ClientError):
                await answer.read()
