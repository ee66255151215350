"""Redis over TLS: the right server is taken, any other is refused, and the operator told why."""

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import pytest

from pages import readiness
from tests.check_stage import check
from tests.settings_stage import refusal
from tests.stage import Upstream, Visitor, serving, settings_with, visiting
from tests.tls_stage import OPENSSL, Authority, Encrypted, encrypted

if OPENSSL is None and os.environ.get("CI") != "true":
    pytest.skip("openssl is needed: apt-get install openssl", allow_module_level=True)


class Servers:
    """Three of them, by one authority, and another authority of which they know nothing."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self.authority = Authority(directory / "ours")
        self.other = Authority(directory / "other")

        def server(name: str, names: str, *, asks_clients: bool = False) -> Encrypted:
            return stack.enter_context(
                encrypted(directory / name, self.authority, names, asks_clients=asks_clients)
            )

        self.plain = server("plain", "IP:127.0.0.1,DNS:localhost")
        self.elsewhere = server("elsewhere", "DNS:redis.example")
        self.asking = server("asking", "IP:127.0.0.1", asks_clients=True)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """The servers, running."""
    with ExitStack() as stack:
        yield Servers(tmp_path_factory.mktemp("tls"), stack)


@asynccontextmanager
async def visiting_by(
    url: str, upstream: Upstream
) -> AsyncIterator[tuple[Visitor, dict[str, str]]]:
    """A visitor of a Keyturn with this REDIS_URL, and what its `/readyz` says."""
    settings = settings_with(
        redis_url=url, openai_base_url=upstream.url, redis_connect_timeout_ms=2000
    )
    async with serving(settings) as server, visiting(server) as visitor:
        yield visitor, await readiness(server.keyturn)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_our_own_authority_is_believed(
    servers: Servers, upstream: Upstream, tmp_path: Path, host: str
) -> None:
    """A server with a certificate for the host that is asked, of the authority that is named."""
    url = servers.plain.url(host, ssl_ca_certs=servers.authority.ca)
    async with visiting_by(url, upstream) as (visitor, state):
        assert (state["redis"], state["script"]) == ("ok", "ok")
        assert [(await visitor.say()).status for _ in range(2)] == [200, 200]
    assert check(tmp_path, REDIS_URL=url).code == 0


async def test_a_certificate_of_ours_is_shown(servers: Servers, upstream: Upstream) -> None:
    """Where Redis asks clients for one, and trusts who signed it."""
    certificate, key = servers.authority.certify("client")
    files = {"ssl_certfile": certificate, "ssl_keyfile": key}
    url = servers.asking.url(ssl_ca_certs=servers.authority.ca, **files)
    async with visiting_by(url, upstream) as (visitor, state):
        assert state["redis"] == "ok"
        assert (await visitor.say()).status == 200


NO_AUTHORITY = "its certificate is of no authority that is trusted here"
ANOTHER_HOST = "its certificate is not for the host that REDIS_URL names"
OURS = ("it wants a certificate of ours that it trusts", "it ends the connection at once")
TLS_ONLY = "it ends the connection at once: it may speak TLS only (rediss://)"


def refused_urls(servers: Servers) -> dict[str, tuple[str, str | tuple[str, ...]]]:
    """URLs by which nobody may get in, each with the reason that is told."""
    ca, other = servers.authority.ca, servers.other.ca
    certificate, key = servers.other.certify("client")
    strange = {"ssl_certfile": certificate, "ssl_keyfile": key}
    return {
        "another authority": (servers.plain.url(ssl_ca_certs=other), NO_AUTHORITY),
        "an authority of nobody's": (servers.plain.url(), NO_AUTHORITY),
        "another host": (servers.elsewhere.url(ssl_ca_certs=ca), ANOTHER_HOST),
        "no TLS": (f"redis://127.0.0.1:{servers.plain.port}", TLS_ONLY),
        "no certificate of ours": (servers.asking.url(ssl_ca_certs=ca), OURS),
        "one that it does not trust": (servers.asking.url(ssl_ca_certs=ca, **strange), OURS),
    }


async def test_any_other_is_refused_and_the_reason_told(
    servers: Servers, upstream: Upstream, tmp_path: Path
) -> None:
    """In `/readyz` and by `check`; nobody gets in, and upstream is not asked."""
    for name, (url, reason) in refused_urls(servers).items():
        async with visiting_by(url, upstream) as (visitor, state):
            assert state["redis"].startswith(reason), name
            assert (await visitor.say()).code == "store_unavailable", name
        found = check(tmp_path, REDIS_URL=url)
        assert found.code == 1
        assert found.of("redis", "fault")[0].startswith(reason), name
    assert await upstream.books() == []


def test_whoever_does_not_look_is_warned(servers: Servers, tmp_path: Path) -> None:
    """The control: with ssl_cert_reqs=none the wrong server gets in, and `check` says so."""
    url = servers.elsewhere.url(ssl_cert_reqs="none", ssl_check_hostname="false")
    found = check(tmp_path, REDIS_URL=url)
    assert found.code == 0
    assert "whoever is on the way could pass for it" in found.of("redis", "warning")[0]


def test_files_that_cannot_be_used_are_named_at_start(servers: Servers, tmp_path: Path) -> None:
    """Before anything is connected; so are options that TLS does not have, or is not asked for."""
    certificate, _ = servers.authority.certify("lonely")
    _, other_key = servers.other.certify("client")
    empty = tmp_path / "empty"
    empty.write_text("")
    for options, reason in {
        f"ssl_ca_certs={tmp_path}/missing": "no readable certificate in its ssl_ca_certs",
        f"ssl_ca_certs={empty}": "no readable certificate in its ssl_ca_certs",
        f"ssl_certfile={certificate}": "no readable certificate with its key",
        f"ssl_certfile={certificate}&ssl_keyfile={other_key}": "certificate with its key",
        f"ssl_keyfile={other_key}": "and no certificate in ssl_certfile",
        "ssl_cert_reqs=perhaps": "in ssl_cert_reqs one of none, optional, required",
        "ssl_foo=1": "may have of ssl_* the options ssl_ca_certs",
    }.items():
        assert reason in refusal(redis_url=f"rediss://host?{options}"), options
    assert "should be rediss" in refusal(redis_url=f"redis://host?ssl_ca_certs={certificate}")
