"""REDIS_URL: one server, the primary that Sentinels name, or a cluster."""

import re

import pytest

from security.store_url import CLUSTER, SENTINEL, SERVER, StoreUrl, read_store_url

THREE = (("one", 26379), ("two", 7000), ("::1", 26379))


@pytest.mark.parametrize(
    "url",
    ["redis://host", "rediss://u:p@host:6380/1?ssl_cert_reqs=none&db=2", "unix://u:p@/tmp/s?db=1"],
)
def test_one_server_is_the_librarys_to_read(url: str) -> None:
    """It is handed on as it was written."""
    assert read_store_url(url) == StoreUrl(SERVER, url)


@pytest.mark.parametrize(
    ("url", "plain"),
    [
        ("redis+sentinel://one,two:7000,[::1]/main", "redis://host"),
        ("redis+sentinel://one:26379,two:7000,[::1]:26379/main/0", "redis://host/0"),
        ("redis+sentinel://:p%40w@one,two:7000,[::1]/main/3", "redis://:p%40w@host/3"),
        ("rediss+sentinel://u:p@one,two:7000,[::1]/main", "rediss://u:p@host"),
        (
            "rediss+sentinel://one,two:7000,[::1]/main?ssl_cert_reqs=none",
            "rediss://host?ssl_cert_reqs=none",
        ),
    ],
)
def test_sentinels(url: str, plain: str) -> None:
    """Hosts with the usual port of Sentinels, the service, and what each of its servers is told."""
    assert read_store_url(url) == StoreUrl(SENTINEL, plain, THREE, "main")


@pytest.mark.parametrize(
    "options",
    [
        "sentinel_username=guard&sentinel_password=a%20word&ssl_ca_certs=ca.pem",
        "ssl_ca_certs=ca.pem&sentinel_password=a+word&sentinel_username=guard",
        "sentinel_username=guard&ssl_ca_certs=ca.pem&sentinel_password=a%20word",
    ],
)
def test_sentinels_have_a_password_of_their_own(options: str) -> None:
    """It is theirs alone: no server is told it."""
    said = read_store_url(f"rediss+sentinel://u:p@one/main?{options}")
    assert (said.sentinel_username, said.sentinel_password) == ("guard", "a word")
    assert said.plain == "rediss://u:p@host?ssl_ca_certs=ca.pem"


@pytest.mark.parametrize(
    ("url", "plain"),
    [
        ("redis+cluster://one:26379,two:7000,[::1]:26379", "redis://host"),
        ("rediss+cluster://u:p@one:26379,two:7000,[::1]:26379/", "rediss://u:p@host"),
        ("redis+cluster://one:26379,two:7000,[::1]:26379/0", "redis://host"),
    ],
)
def test_a_cluster(url: str, plain: str) -> None:
    """Some of its nodes, and what each is told."""
    assert read_store_url(url) == StoreUrl(CLUSTER, plain, THREE)


def test_the_usual_port_of_a_node() -> None:
    """A cluster's nodes listen where every server does."""
    assert read_store_url("redis+cluster://one").hosts == (("one", 6379),)


SCHEMES = "should begin with redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://"
SERVICE = "should end in the name by which Sentinels know the primary, such as /mymaster"
HOSTS = "should list hosts as host:port,host:port; in a password write %2F for /"
REFUSED = [
    ("redis+sentry://one/main", SCHEMES),
    ("sentinel://one/main", SCHEMES),
    ("unix+sentinel:///tmp/s", SCHEMES),
    ("redis+sentinel://one:26379", SERVICE),
    ("redis+sentinel://one:26379/", SERVICE),
    ("redis+sentinel://one/main/0/1", SERVICE),
    ("redis+sentinel://one/main/zero", SERVICE),
    ("redis+sentinel:///main", HOSTS),
    ("redis+sentinel://one,/main", HOSTS),
    ("redis+sentinel://one;two/main", HOSTS),
    ("redis+sentinel://one:0/main", HOSTS),
    ("redis+cluster://one:65536", HOSTS),
    ("redis+cluster://::1", HOSTS),
    ("redis+cluster://u:canary/word@one:1", "cannot be read; in a password write %2F for /"),
    ("redis+cluster://u:canary@word@one:1", "cannot be read; in a password write %2F for /"),
    ("redis+cluster://one/1", "should end after the hosts: a cluster has one database"),
    ("redis+cluster://one?db=1", "may have the options ssl_*, and no others"),
    ("redis+cluster://one?nonsense", "cannot be read; "),
    ("redis+sentinel://one/main?socket_timeout=60", "may have the options sentinel_username, "),
    ("redis://one?sentinel_password=canary", "may have the options db and ssl_*, and no others"),
]


@pytest.mark.parametrize(("url", "why"), REFUSED)
def test_what_cannot_be_meant_is_explained(url: str, why: str) -> None:
    """By what would be right, and without a part of the URL: it may hold a password."""
    with pytest.raises(ValueError, match="^" + re.escape(why)) as refused:
        read_store_url(url)
    assert "canary" not in str(refused.value)


def test_no_password_is_shown() -> None:
    """Neither the servers' nor the Sentinels' stands in what a traceback would print."""
    said = read_store_url("redis+sentinel://u:canary@one/main?sentinel_password=canary")
    assert "canary" not in repr(said)
