"""Where the store is, as REDIS_URL says it. Pure.

    redis://[user:password@]host[:6379][/db]                        one server
    unix://[user:password@]/path                                    one on this machine
    redis+sentinel://[user:password@]host[:26379],…/service[/db]    the primary that Sentinels name
    redis+cluster://[user:password@]host[:6379],…                   the cluster that these are of

`rediss` in place of `redis` is TLS, to Sentinels too. User and password are those of the servers;
Sentinels' own are the options sentinel_username and sentinel_password.
"""

import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

SERVER: Final = "server"
SENTINEL: Final = "sentinel"
CLUSTER: Final = "cluster"
_SCHEME: Final = re.compile(r"(?:(rediss?)(?:\+(sentinel|cluster))?|unix)://")
_MANY: Final = re.compile(
    r"(rediss?)\+(sentinel|cluster)://(?:([^@/?#]*)@)?([^@/?#]*)(/[^@?#]*)?(\?[^#]*)?"
)
_HOST: Final = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?")
_SERVICE: Final = re.compile(r"/([^/]+)(/[0-9]{1,4})?/?")
_PORTS: Final = {SENTINEL: 26379, CLUSTER: 6379}
_LAST_PORT: Final = 65535
_OWN: Final = ("sentinel_username", "sentinel_password")
_TLS: Final = (
    *("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile", "ssl_password"),
    *("ssl_cert_reqs", "ssl_check_hostname", "ssl_min_version", "ssl_ciphers"),
)
_WHO: Final = ("none", "optional", "required")
_ESCAPES: Final = "in a password write %2F for /, %40 for @, %23 for # and %3F for ?"


@dataclass(frozen=True, slots=True)
class StoreUrl:
    """What a URL says: `plain` is that of one server, whose host and port count if it is the one.

    `hosts` are the Sentinels, which know the primary as `service`, or nodes of the cluster.
    """

    kind: str
    plain: str = field(repr=False)
    hosts: tuple[tuple[str, int], ...] = ()
    service: str = ""
    sentinel_username: str | None = field(default=None, repr=False)
    sentinel_password: str | None = field(default=None, repr=False)
    options: dict[str, str] = field(default_factory=dict, repr=False, compare=False)


def read_store_url(text: str) -> StoreUrl:
    """The parts of a URL; raises `ValueError` for what cannot be meant, and never repeats it.

    Options that would overrule our deadlines are refused.
    """
    scheme = _SCHEME.match(text)
    if not scheme:
        raise ValueError(
            "should begin with redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://"
        )
    if not scheme[2]:
        return StoreUrl(SERVER, text, options=_require_options(text, ("db",)))
    parts = _MANY.fullmatch(text)
    if not parts:
        raise ValueError(f"cannot be read; {_ESCAPES}")
    return _read_many(*(part or "" for part in parts.groups()))


def _read_many(scheme: str, kind: str, user: str, hosts: str, path: str, query: str) -> StoreUrl:
    found = tuple(_read_host(host, _PORTS[kind]) for host in hosts.split(","))
    service, database = _read_service(path) if kind == SENTINEL else _no_database(path)
    options = _require_options(f"{scheme}://host/{query}", _OWN if kind == SENTINEL else ())
    guard, word = (options.pop(name, None) for name in _OWN)
    at = f"{user}@" if user else ""
    asked = f"?{urlencode(options)}" if options else ""
    plain = f"{scheme}://{at}host{database}{asked}"
    return StoreUrl(kind, plain, found, service, guard, word, options)


def _read_host(text: str, usual_port: int) -> tuple[str, int]:
    said = _HOST.fullmatch(text.strip())
    port = int((said and said[2]) or usual_port)
    if not said or not 0 < port <= _LAST_PORT:
        raise ValueError(f"should list hosts as host:port,host:port; {_ESCAPES}")
    return said[1].strip("[]"), port


def _read_service(path: str) -> tuple[str, str]:
    said = _SERVICE.fullmatch(path)
    if not said:
        raise ValueError(
            "should end in the name by which Sentinels know the primary, such as /mymaster, "
            "and then a database if it is not 0"
        )
    return unquote(said[1]), said[2] or ""


def _no_database(path: str) -> tuple[str, str]:
    if path not in ("", "/", "/0"):
        raise ValueError("should end after the hosts: a cluster has one database")
    return "", ""


def _require_options(text: str, allowed: tuple[str, ...]) -> dict[str, str]:
    try:
        parts = urlsplit(text)
        parts.port  # noqa: B018  # is read, and may not be a number
        options = parse_qs(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        raise ValueError(f"cannot be read; {_ESCAPES}") from None
    refused = [name for name in options if name not in allowed and not name.startswith("ssl_")]
    if refused or not parts.query.isascii():
        names = " and ".join(part for part in (", ".join(allowed), "ssl_*") if part)
        raise ValueError(f"may have the options {names}, and no others")
    _require_tls(parts.scheme, {name for name in options if name.startswith("ssl_")})
    if options.get("ssl_cert_reqs", ["none"])[0] not in _WHO:
        raise ValueError(f"should have in ssl_cert_reqs one of {', '.join(_WHO)}")
    return {name: said[0] for name, said in options.items()}


def _require_tls(scheme: str, named: set[str]) -> None:
    if not named <= set(_TLS):
        raise ValueError(f"may have of ssl_* the options {', '.join(_TLS)}, and no others")
    if named and not scheme.startswith("rediss"):
        raise ValueError("has options of TLS: its scheme should be rediss, and not redis")
