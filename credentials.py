"""Who asks, and what they show: read from the head of a request, and from its connection."""

import logging
from typing import Final

from exchange import Exchange
from house import Keyturn
from security.client_ip import client_address, looks_proxied, prefixes
from security.errors import Rejection
from security.gate import Credentials
from security.scripts import Visitor

log = logging.getLogger("keyturn")

FIRST_TURN_PLACEHOLDER: Final = "keyturn"
UNNAMED_PROXY: Final = (
    "a proxy forwards requests but TRUSTED_PROXIES is empty: all visitors share one limit"
)


def bearer(exchange: Exchange) -> str | None:
    """The token shown, or None for a first turn; other credentials are no token at all."""
    authorization = exchange.header(b"authorization")
    if authorization is None:
        return None
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer" or not token:
        return f" {authorization}"  # holds a blank, so check 2 refuses it in its turn
    return None if token == FIRST_TURN_PLACEHOLDER else token


def credentials(exchange: Exchange, keyturn: Keyturn, token: str | None) -> Credentials:
    """What the visitor shows, as it came."""
    return Credentials(
        visitor=visitor(exchange, keyturn),
        timestamp=exchange.header(b"keyturn-timestamp"),
        fingerprint=exchange.header(b"keyturn-fingerprint"),
        token=token,
        idempotency_key=exchange.header(b"idempotency-key"),
    )


def visitor(exchange: Exchange, keyturn: Keyturn) -> Visitor:
    """Whose limits the request counts against: keyed hashes of the client's address prefixes."""
    settings = keyturn.settings
    vendor = settings.client_ip_header
    forwarded = exchange.values(b"x-forwarded-for")
    address = client_address(
        exchange.peer,
        forwarded,
        exchange.header(vendor.lower().encode()) if vendor else None,
        settings.trusted_proxies,
    )
    if looks_proxied(exchange.peer, forwarded, settings.trusted_proxies):
        notice_proxy(keyturn)
    if address is None:
        raise Rejection("overloaded", "The server cannot tell its visitors apart.")
    narrow, wide = prefixes(address)
    named = keyturn.hash.of_prefix
    exchange.note.visitor = name = named(narrow)
    return Visitor(name, named(wide) if wide else None)


def safety_identifier(asking: Visitor, keyturn: Keyturn) -> str | None:
    """How upstream may tell our visitors apart, where it is told: a keyed hash, and never a word of
    their own."""
    if not keyturn.policy.identified:
        return None
    named = f"{keyturn.settings.tenant}\0{asking.address}"
    return keyturn.hash("safety", named.encode())


def notice_proxy(keyturn: Keyturn) -> None:
    """Say once that a proxy stands before us which the operator did not name."""
    if UNNAMED_PROXY not in keyturn.noticed:
        keyturn.noticed.add(UNNAMED_PROXY)
        log.warning(UNNAMED_PROXY)
