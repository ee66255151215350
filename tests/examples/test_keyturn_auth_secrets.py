"""What the environment says to the openai SDK, and what our auth lets through of it."""

import asyncio
import json
import sys
from pathlib import Path

import httpx2
import openai
import pytest
from aiohttp import web

from keyturn_auth import KeyturnAuth
from tests.command_stage import CANARY, run
from tests.cutting_proxy import cutting_proxy
from tests.examples.sdk_stage import KINDS, chains, talking
from tests.stage import ROOT, Server, Upstream
from tests.wire import upstream_by_function

ENVIRONMENT = {
    "OPENAI_API_KEY": f"sk-{CANARY}",
    "OPENAI_ADMIN_KEY": f"sk-admin-{CANARY}",
    "OPENAI_ORG_ID": f"org-{CANARY}",
    "OPENAI_PROJECT_ID": f"proj-{CANARY}",
}
# A program that forgot to say api_key="keyturn"; the arguments: a URL, and whether to use our auth.
FORGETFUL = """
import httpx2, openai, sys
from keyturn_auth import KeyturnAuth
url = sys.argv[1]
auth = KeyturnAuth(url) if sys.argv[2] == "with" else None
with httpx2.Client(auth=auth) as http_client:
    client = openai.OpenAI(base_url=url, http_client=http_client, max_retries=0)
    model = client.models.list().data[0].id
    messages = [{"role": "user", "content": "hi"}]
    client.chat.completions.create(model=model, messages=messages)
"""


@pytest.mark.parametrize("auth", ["with", "without"])
async def test_a_key_of_the_environment_never_travels(
    auth: str, server: Server, tmp_path: Path
) -> None:
    """Nor do organisation and project; without the auth (the control) the SDK sends all of it."""
    async with cutting_proxy(server.url) as proxy:
        came = await asyncio.to_thread(
            lambda: run(
                *(sys.executable, "-c", FORGETFUL, f"{proxy.url}/v1", auth),
                cwd=tmp_path,
                **{**ENVIRONMENT, "PYTHONPATH": str(ROOT / "examples")},
            )
        )
    sent = [(each.method, CANARY in json.dumps(each.headers)) for each in proxy.carried]
    if auth == "with":
        assert came.returncode == 0, came.stderr
        assert sent == [("GET", False), ("POST", False)]
    else:
        assert sent == [("GET", True), ("POST", True)]


@pytest.mark.parametrize("kind", KINDS)
async def test_another_host_gets_nothing_of_ours(
    kind: str, server: Server, upstream: Upstream
) -> None:
    """A client that speaks to Keyturn shows another address its key, and no header of ours."""
    auth = KeyturnAuth(server.url)
    async with talking(kind, server.url, auth) as sdk:
        await sdk.whole("to Keyturn")
    await upstream.forget()
    async with talking(kind, upstream.url.removesuffix("/v1"), auth, api_key="theirs") as sdk:
        await sdk.whole("to another")
    (entry,) = await upstream.books()
    assert entry["authorization"] == "Bearer theirs"
    names = [name.lower() for name in entry["headers"]]
    assert not [name for name in names if name.startswith(("keyturn-", "idempotency-"))]
    assert await chains(server) == [1]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_redirect_takes_nothing_elsewhere(kind: str, upstream: Upstream) -> None:
    """An address that sends the client to another one is an error, and nothing goes there."""

    async def redirect(_: web.Request) -> web.Response:
        raise web.HTTPTemporaryRedirect(f"{upstream.url}/chat/completions")

    async with (
        upstream_by_function(redirect) as url,
        talking(kind, url.removesuffix("/v1")) as sdk,
    ):
        with pytest.raises(openai.APIStatusError) as moved:
            await sdk.whole("where am I?")
    assert moved.value.status_code == 307
    assert await upstream.books() == []


def test_our_http_client_follows_no_redirect() -> None:
    """The control: httpx2's own default, on which that stands; the SDK's own client has another."""
    assert httpx2.Client(trust_env=False).follow_redirects is False
    assert openai.DefaultHttpxClient(trust_env=False).follow_redirects is True
