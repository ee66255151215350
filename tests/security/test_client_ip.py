"""Whose limit a request counts against: promises about addresses, proxies and prefixes."""

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from security.client_ip import (
    MAX_HOPS,
    Address,
    Proxies,
    _hop,
    client_address,
    looks_proxied,
    parse_address,
    prefixes,
)

# On a fresh machine the first text waits for the tables of Unicode to be built.
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

NOBODY = Proxies.parse("")
TEN = Proxies.parse("10.0.0.0/8, fd00::/8")
SOCKET = Proxies.parse("unix, 10.0.0.0/8")

VISITOR = ip_address("203.0.113.9")
PUBLIC = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).filter(
    lambda address: address == parse_address(str(address)) and not TEN.trusts(address)
)
GARBAGE = ["", " ", "unknown", "_hidden", "1.2.3", "1.2.3.4.5", "01.2.3.4", "256.1.1.1", "1.2.3.4:"]
GARBAGE += ["1.2.3.4:567890", "1.2.3.4/32", "0x1.2.3.4", "[1.2.3.4]", "[::1", "::1]", ":::", "[]"]
GARBAGE += [
    "\u0661.\u0662.3.4",
    "\uff11.2.3.4",
    "1.2.3.4\x00",
    "\xa01.2.3.4",
    "1.2.3.4\n",
    '"1.2.3.4"',
    "\ud800",
]
GARBAGE += ["::1%", "[::1%a]b]", "::1%" + "x" * 40, "for=1.2.3.4", "-1.2.3.4", "1.2.3.4 5.6.7.8"]


def seen(peer: str | None, *lines: str, vendor: str | None = None, proxies: Proxies = TEN) -> str:
    """The address that counts, as text; "None" for none."""
    return str(client_address(peer, lines, vendor, proxies))


@PATIENT
@given(PUBLIC, st.lists(st.text(max_size=40)), st.text(max_size=40))
def test_without_trusted_proxies_the_peer_counts_whatever_it_sends(
    peer: Address, lines: list[str], vendor: str
) -> None:
    """With an empty list no header changes who counts."""
    assert client_address(str(peer), lines, vendor, NOBODY) == peer


@PATIENT
@given(PUBLIC, st.lists(st.text(max_size=40)), st.text(max_size=40))
def test_a_peer_that_is_no_proxy_counts_itself(
    peer: Address, lines: list[str], vendor: str
) -> None:
    """Headers from a peer outside the list are not read."""
    assert client_address(str(peer), lines, vendor, TEN) == peer


@PATIENT
@given(
    PUBLIC,
    st.lists(st.text(max_size=40)),
    st.lists(st.sampled_from(["10.1.1.1", "fd00::1"]), max_size=20),
)
def test_what_stands_left_of_the_visitor_is_never_looked_at(
    visitor: Address, invented: list[str], ours: list[str]
) -> None:
    """No spoofed entry moves a visitor whose address our proxies appended."""
    header = ",".join([*invented, str(visitor), *ours])
    assert client_address("10.0.0.1", [header], None, TEN) == visitor


def test_the_lines_of_the_header_are_one_list_in_order_of_arrival() -> None:
    """A line that a visitor wrote himself stands before the one our proxy added."""
    assert seen("10.0.0.1", "198.51.100.7", "203.0.113.9, 10.0.0.2") == "203.0.113.9"
    assert seen("10.0.0.1", "198.51.100.7, 203.0.113.9", "10.0.0.2") == "203.0.113.9"


@pytest.mark.parametrize("garbage", GARBAGE)
def test_an_entry_that_is_no_address_stops_the_walk(garbage: str) -> None:
    """What stands left of garbage is not reached: the hop that reported it counts."""
    assert parse_address(garbage) is None
    assert seen("10.0.0.1", f"203.0.113.9, {garbage}, 10.0.0.3, 10.0.0.2") == "10.0.0.3"
    assert seen("10.0.0.1", f"203.0.113.9, {garbage}") == "10.0.0.1"


def test_garbage_that_a_visitor_sends_does_not_hide_him() -> None:
    """Our proxy appends the true address behind it, and that is read first."""
    assert {seen("10.0.0.1", f"{garbage}, 203.0.113.9") for garbage in GARBAGE} == {"203.0.113.9"}


def test_if_every_hop_is_a_proxy_the_peer_counts() -> None:
    """A list that trusts too much does not let the leftmost entry choose the limit."""
    wide = Proxies.parse("0.0.0.0/1, 128.0.0.0/1")
    assert seen("10.0.0.1", "10.0.0.3, 10.0.0.2") == "10.0.0.1"
    assert seen("10.0.0.1", "1.1.1.1, 203.0.113.9", proxies=wide) == "10.0.0.1"
    assert seen("10.0.0.1", "2.2.2.2, 203.0.113.9", proxies=wide) == "10.0.0.1"


def test_no_header_from_a_proxy_leaves_the_proxy() -> None:
    """A health check of our own balancer counts as the balancer."""
    assert seen("10.0.0.1") == "10.0.0.1"
    assert seen("10.0.0.1", "") == "10.0.0.1"


def test_thousands_of_hops_cost_no_more_than_a_bounded_walk() -> None:
    """Invented hops are not read, and a walk past MAX_HOPS ends at its last good hop."""
    invented = ", ".join(["198.51.100.7"] * 5000)
    assert seen("10.0.0.1", f"{invented}, 203.0.113.9, 10.0.0.2") == "203.0.113.9"
    assert seen("10.0.0.1", *["198.51.100.7"] * 5000, "203.0.113.9") == "203.0.113.9"
    assert seen("10.0.0.1", "," * 16000) == "10.0.0.1"
    chain = ["10.0.0.2"] * (MAX_HOPS - 2)
    assert seen("10.0.0.1", ",".join(["1.1.1.1", "203.0.113.9", *chain])) == "203.0.113.9"
    assert seen("10.0.0.1", ",".join(["203.0.113.9", *chain * 2])) == "10.0.0.2"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("203.0.113.9", "203.0.113.9"),
        (" \t203.0.113.9\t ", "203.0.113.9"),
        ("203.0.113.9:567", "203.0.113.9"),
        ("2001:db8::9", "2001:db8::9"),
        ("2001:DB8:0:0::9", "2001:db8::9"),
        ("[2001:db8::9]", "2001:db8::9"),
        ("[2001:db8::9]:567", "2001:db8::9"),
        ("fe80::1%eth0", "fe80::1"),
        ("[fe80::1%eth0.7]:567", "fe80::1"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("::FFFF:cb00:7109", "203.0.113.9"),
        ("[::ffff:203.0.113.9]:567", "203.0.113.9"),
        ("::ffff:203.0.113.9%eth0", "203.0.113.9"),
    ],
)
def test_a_hop_may_be_spelled_in_many_ways(text: str, address: str) -> None:
    """Ports, brackets, zones, blanks and mapping do not make another visitor."""
    assert str(parse_address(text)) == address
    assert seen(text, proxies=NOBODY) == address
    assert seen("10.0.0.1", f"198.51.100.7,{text}") == address


@PATIENT
@given(st.text())
def test_no_text_makes_reading_a_hop_raise(text: str) -> None:
    """Any text is an address or is None."""
    assert isinstance(parse_address(text), IPv4Address | IPv6Address | None)


@PATIENT
@given(st.ip_addresses(v=4))
def test_a_mapped_address_is_the_ipv4_it_carries(address: IPv4Address) -> None:
    """Peer, hop, vendor value and prefix see one visitor in both spellings."""
    mapped = f"::ffff:{address}"
    assert client_address(mapped, [], None, NOBODY) == address
    assert prefixes(IPv6Address(mapped)) == prefixes(address)
    only_it = Proxies((ip_network(address),))
    assert client_address(mapped, [str(VISITOR)], None, only_it) == VISITOR
    assert client_address(mapped, [f"{VISITOR}, {mapped}"], None, only_it) == VISITOR


def test_mapped_peers_and_networks_meet() -> None:
    """A dual-stack socket shows an IPv4 proxy as mapped, and it is trusted all the same."""
    assert seen("::ffff:10.0.0.1", "203.0.113.9, ::ffff:10.0.0.2") == "203.0.113.9"
    assert Proxies.parse("::ffff:10.0.0.0/104") == Proxies.parse("10.0.0.0/8")
    assert Proxies.parse("::ffff:10.0.0.1") == Proxies.parse("10.0.0.1")


def test_the_vendor_header_of_a_proxy_goes_first() -> None:
    """From a trusted peer, and only as an address, the vendor's word counts."""
    assert seen("10.0.0.1", "198.51.100.7", vendor="203.0.113.9") == "203.0.113.9"
    assert seen("10.0.0.1", vendor="::ffff:203.0.113.9") == "203.0.113.9"
    assert seen(None, vendor="203.0.113.9", proxies=SOCKET) == "203.0.113.9"
    assert seen("198.51.100.7", vendor="203.0.113.9") == "198.51.100.7"
    assert seen(None, vendor="203.0.113.9") == "None"


@pytest.mark.parametrize("vendor", [*GARBAGE, "203.0.113.9, 198.51.100.7"])
def test_a_vendor_value_that_is_no_address_is_left_out(vendor: str) -> None:
    """The walk goes on as if the header were not there."""
    assert seen("10.0.0.1", "203.0.113.9", vendor=vendor) == "203.0.113.9"


@pytest.mark.parametrize("peer", [None, "", "testclient", "/run/keyturn.sock"])
def test_a_peer_without_an_address_is_believed_only_if_unix_is_trusted(peer: str | None) -> None:
    """Without `unix` there is no address at all, whatever the headers say."""
    assert seen(peer, "203.0.113.9", vendor="203.0.113.9") == "None"
    assert seen(peer, "203.0.113.9", proxies=NOBODY) == "None"
    assert seen(peer, "198.51.100.7, 203.0.113.9", proxies=SOCKET) == "203.0.113.9"
    assert seen(peer, "203.0.113.9, 10.0.0.2", proxies=SOCKET) == "203.0.113.9"


def test_behind_a_socket_no_visitor_is_the_nearest_hop_or_nobody() -> None:
    """There is no peer to fall back on, so the last proxy that has an address counts."""
    assert seen(None, "10.0.0.3, 10.0.0.2", proxies=SOCKET) == "10.0.0.2"
    assert seen(None, "garbage", proxies=SOCKET) == "None"
    assert seen(None, proxies=SOCKET) == "None"


def test_unix_alone_trusts_no_address() -> None:
    """The word stands for peers without an address only."""
    assert seen("10.0.0.1", "203.0.113.9", proxies=Proxies.parse("unix")) == "10.0.0.1"


def test_a_list_is_read_with_blanks_and_empty_items() -> None:
    """Networks, single addresses and the word `unix`, in any order."""
    read = Proxies.parse(" 10.0.0.0/8 ,unix,, 192.0.2.1,2001:db8::/32, ")
    networks = ("10.0.0.0/8", "192.0.2.1/32", "2001:db8::/32")
    assert read == Proxies(tuple(ip_network(text) for text in networks), unix=True)
    assert bool(read) is True
    assert bool(Proxies.parse(" , ")) is False


@pytest.mark.parametrize(
    "item",
    [
        *("10.0.0.1/8", "10.0.0.0/33", "10.0.0.0/255.0.0.0", "10.0.0.0/0.255.255.255", "10.0.0"),
        *(
            "proxy.example",
            "*",
            "UNIX ",
            "unix:/run/x",
            "fe80::1%eth0",
            "[::1]",
            "::1/129",
            "\u0661.2.3.4",
        ),
        *("0.0.0.0/0", "::/0", "::ffff:0.0.0.0/96"),
    ],
)
def test_a_bad_item_is_named(item: str) -> None:
    """The error quotes what cannot be read, or what would trust everybody."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the text is asserted below
        Proxies.parse(f"10.0.0.0/8, {item}, unix")
    assert repr(item.strip()) in str(caught.value)


@PATIENT
@given(st.ip_addresses(v=4))
def test_ipv4_is_limited_by_itself(address: IPv4Address) -> None:
    """One IPv4 address is one visitor, in one tier."""
    assert prefixes(address) == (f"{address}/32", None)


@PATIENT
@given(st.integers(1 << 48, (1 << 128) - 1).map(IPv6Address))
def test_ipv6_is_limited_by_two_prefixes(address: IPv6Address) -> None:
    """The /64 and the /48 are the networks that the standard library finds."""
    narrow, wide = (ip_network((address.packed, length), strict=False) for length in (64, 48))
    assert prefixes(address) == (str(narrow), str(wide))


def test_prefixes_are_written_in_short_form() -> None:
    """The texts are keys, so their form is a promise."""
    assert prefixes(ip_address("203.0.113.9")) == ("203.0.113.9/32", None)
    wanted = ("2001:db8:1:2::/64", "2001:db8:1::/48")
    assert prefixes(ip_address("2001:db8:1:2:3:4:5:6")) == wanted
    assert prefixes(IPv6Address("fe80::1%eth0")) == ("fe80::/64", "fe80::/48")


@pytest.mark.parametrize(
    "peer",
    [
        *("10.0.0.1", "172.16.5.5", "192.168.0.1", "100.64.0.1", "169.254.1.1", "127.0.0.1"),
        *("::1", "fd00::1", "fe80::1%eth0", "::ffff:10.0.0.1", "::ffff:127.0.0.1", None, ""),
    ],
)
def test_a_private_peer_that_forwards_looks_like_a_forgotten_proxy(peer: str | None) -> None:
    """Only while no proxy is named, and only if it forwards."""
    assert looks_proxied(peer, ["203.0.113.9"], NOBODY)
    assert not looks_proxied(peer, [], NOBODY)
    assert not looks_proxied(peer, ["203.0.113.9"], Proxies.parse("192.0.2.1"))
    assert not looks_proxied(peer, ["203.0.113.9"], Proxies.parse("unix"))


@pytest.mark.parametrize("peer", ["203.0.113.9", "172.32.0.1", "100.128.0.1", "2001:db8::1"])
def test_a_public_peer_does_not_look_like_a_proxy(peer: str) -> None:
    """Anybody can send the header from the open internet."""
    assert not looks_proxied(peer, ["203.0.113.9"], NOBODY)


def test_few_addresses_are_kept_and_no_long_text() -> None:
    """What is remembered of hops is bounded in number and in length, whatever a header holds."""
    for number in range(5000):
        assert parse_address(f"10.0.{number // 256}.{number % 256}")
    assert _hop.cache_info().currsize == 1024
    _hop.cache_clear()
    longest = f"[{'0000:' * 6}255.255.255.255%{'z' * 32}]:65535"
    assert parse_address(longest) == IPv6Address("::ffff:ffff")
    assert parse_address("1" * 10_000) is None
    assert parse_address(" " * 10_000 + "192.0.2.1") == IPv4Address("192.0.2.1")
    assert _hop.cache_info().currsize == 2
