"""Whose limit a request counts against: the visitor's address, and its prefixes.

The law: nothing that a visitor wrote himself is believed. The peer of the socket is the visitor,
unless the operator named it as a proxy; then X-Forwarded-For is read from the right, where our own
proxies append, and the first address that is none of theirs is the visitor. What stands left of
it may be invented and is never looked at. IPv4-mapped IPv6 counts as the IPv4 that it carries.

When the walk finds no visitor:

* An entry that is no address (empty ones too) stops it at the last good hop: the proxy that
  reported the entry.
* If every hop is a trusted proxy, the request counts against the peer: the one address known from
  the connection and not from a text. The leftmost entry would, under a list that trusts too much,
  let whoever writes the header choose his limit. A peer without an address (a Unix socket) leaves
  the nearest hop.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Self, TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

# More trusted proxies in a row than any real chain has: the walk stops there.
MAX_HOPS = 64

_ZONE = r"(?:%[A-Za-z0-9._~-]{1,32})?"
_PORT = r"(?::[0-9]{1,5})?"
_HOP = re.compile(
    rf"(?P<four>[0-9.]{{7,15}}){_PORT}"
    rf"|(?P<six>[0-9A-Fa-f:.]{{2,45}}){_ZONE}"
    rf"|\[(?P<boxed>[0-9A-Fa-f:.]{{2,45}}){_ZONE}\]{_PORT}"
)
_LONGEST_HOP = len("[]") + 45 + len("%") + 32 + len(":65535")
_PREFIX_LENGTH = re.compile(r"[^/%]+(?:/[0-9]{1,3})?")

# Not `is_private`, which also holds for documentation addresses and not for shared 100.64/10.
_PRIVATE = tuple(
    ip_network(text)
    for text in (
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "100.64.0.0/10",
        "169.254.0.0/16",
        "127.0.0.0/8",
        "::1/128",
        "fc00::/7",
        "fe80::/10",
    )
)


@dataclass(frozen=True, slots=True)
class Proxies:
    """The peers whose X-Forwarded-For is believed; empty means that none is."""

    networks: tuple[Network, ...] = ()
    unix: bool = False

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read comma-separated networks, single addresses and the word `unix`.

        Raises ValueError that names the first bad item: no address or network, host bits set, or
        a network that holds every address (then no visitor could be told from a proxy).
        """
        items = [item for item in map(str.strip, text.split(",")) if item]
        networks = tuple(_network(item) for item in items if item != "unix")
        return cls(networks, unix="unix" in items)

    def __bool__(self) -> bool:
        return self.unix or bool(self.networks)

    def trusts(self, address: Address | None) -> bool:
        """Whether this peer or hop is one of ours; None is a peer without an address."""
        if address is None:
            return self.unix
        return bool(self.networks) and any(address in network for network in self.networks)


def client_address(
    peer: str | None, forwarded_for: Sequence[str], vendor: str | None, proxies: Proxies
) -> Address | None:
    """Tell which address a request counts against, or None when there is none to believe.

    `peer` is the socket's address (None for a Unix socket), `forwarded_for` the X-Forwarded-For
    lines in order of arrival, `vendor` the value of the one header in which the operator's own
    proxy names the visitor: it goes first, if the peer is trusted and the value is an address.
    """
    address = parse_address(peer) if peer else None
    if not proxies.trusts(address):
        return address
    named = parse_address(vendor) if vendor else None
    return _walk(address, forwarded_for, proxies) if named is None else named


def parse_address(text: str) -> Address | None:
    """Read one hop: an address with or without port, brackets, zone and blanks around; else None.

    IPv4-mapped IPv6 (RFC 4291, 2.5.5.2) is returned as IPv4.
    """
    text = text.strip(" \t")
    return _hop(text) if len(text) <= _LONGEST_HOP else None


@lru_cache(maxsize=1024)  # the same visitors and proxies come again
def _hop(text: str) -> Address | None:
    match = _HOP.fullmatch(text)
    if match is None:
        return None
    four, six, boxed = match.groups()
    try:
        return IPv4Address(four) if four else _unmapped(IPv6Address(six or boxed))
    except ValueError:
        return None


@lru_cache(maxsize=1024)
def prefixes(address: Address) -> tuple[str, str | None]:
    """Name the prefix that is limited, and for IPv6 the second, wider one.

    IPv4 is limited by /32; IPv6 by /64, since one visitor holds that many, and by /48.
    """
    address = _unmapped(address)
    if isinstance(address, IPv4Address):
        return f"{address}/32", None
    number = int(address)
    return f"{IPv6Address(number >> 64 << 64)}/64", f"{IPv6Address(number >> 80 << 80)}/48"


def looks_proxied(peer: str | None, forwarded_for: Sequence[str], proxies: Proxies) -> bool:
    """Whether a proxy seems to stand before us that the operator did not name.

    That is: no proxy is trusted, yet X-Forwarded-For comes from a peer that is private, loopback
    or a Unix socket. All visitors would then share one limit.
    """
    if proxies or not forwarded_for:
        return False
    address = parse_address(peer) if peer else None
    return address is None or any(address in network for network in _PRIVATE)


def _walk(peer: Address | None, lines: Sequence[str], proxies: Proxies) -> Address | None:
    nearest = last = peer
    # Past MAX_HOPS the rest comes as one piece, which is no address and so ends the walk.
    for text in reversed(",".join(lines).rsplit(",", MAX_HOPS)):
        hop = parse_address(text)
        if hop is None:
            return last
        if not proxies.trusts(hop):
            return hop
        nearest, last = nearest or hop, hop
    return nearest


def _unmapped(address: Address) -> Address:
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _network(item: str) -> Network:
    try:
        # `ip_network` alone takes zones, netmasks and wildcard masks too.
        network = ip_network(item) if _PREFIX_LENGTH.fullmatch(item) else None
    except ValueError:
        network = None
    if network is None:
        raise ValueError(f"{item!r} is neither an address, nor a network without host bits")
    network = _unmapped_network(network)
    if network.prefixlen == 0:
        raise ValueError(f"{item!r} trusts every address: name the proxies' own networks")
    return network


def _unmapped_network(network: Network) -> Network:
    four = _unmapped(network.network_address)
    if four.version == network.version or network.prefixlen < 96:
        return network
    return IPv4Network((int(four), network.prefixlen - 96))
