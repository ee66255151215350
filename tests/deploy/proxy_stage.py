"""The proxies that deploy/ has configurations for, as real processes on free ports.

What runs is the shipped file; only names, ports and paths are exchanged, and whatever a control
says besides.
"""

import contextlib
import os
import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pytest

from tests.stage import ROOT, Visitor, visiting, wait_until
from tests.wire import free_port

DEPLOY: Final = ROOT / "deploy"
HOST: Final = "127.0.0.1"
Changes = Sequence[tuple[str, str]]


def program(name: str) -> str | None:
    """Where a proxy is installed; Debian's users have no sbin on their PATH."""
    return shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin:/sbin")


def needs(name: str) -> pytest.MarkDecorator:
    """The mark of a test that cannot run without this program."""
    return pytest.mark.skipif(program(name) is None, reason=f"apt-get install {name}")


@dataclass
class Proxy:
    """A proxy that runs, and where it listens."""

    url: str
    process: "subprocess.Popen[bytes]"
    said: Path
    authority: Path | None = None

    def visiting(self, **said: Any) -> contextlib.AbstractAsyncContextManager[Visitor]:
        """A visitor who trusts whoever signed its certificate."""
        return visiting(self.url, tls=self.tls, **said)

    @property
    def tls(self) -> ssl.SSLContext | bool:
        """What such a visitor connects by."""
        return ssl.create_default_context(cafile=self.authority) if self.authority else True


def exchanged(name: str, changes: Changes) -> str:
    """A shipped file with these texts exchanged, each of which must be there."""
    text = (DEPLOY / name).read_text()
    for old, new in changes:
        assert old in text, f"{name} has no {old!r}"
        text = text.replace(old, new)
    return text


def replicas(urls: Sequence[str]) -> Changes:
    """The addresses of three replicas, in the place of their names; one may stand for all."""
    three = [*urls, *[urls[-1]] * (3 - len(urls))]
    return [(f"keyturn-{n}:8000", urlsplit(url).netloc) for n, url in enumerate(three, 1)]


@contextmanager
def nginx(
    folder: Path, urls: Sequence[str], changes: Changes = (), *, tls: Path | None = None
) -> Iterator[Proxy]:
    """deploy/nginx.conf inside of the shortest http { } that an nginx needs.

    With `tls`, a folder with a certificate, its lines for TLS are in force.
    """
    folder.mkdir(exist_ok=True)
    port = free_port()
    door: Changes = [("listen 8080;", f"listen {HOST}:{port};")]
    if tls:
        door = [
            ("listen 8080;", ""),
            ("# listen 8443 ", f"listen {HOST}:{port} "),
            ("# ssl_certificate /etc/ssl/keyturn.pem", f"ssl_certificate {tls}/cert.pem"),
            ("# ssl_certificate_key /etc/ssl/keyturn.key", f"ssl_certificate_key {tls}/key.pem"),
        ]
    site = exchanged("nginx.conf", [*replicas(urls), *door])
    for old, new in changes:
        assert old in site, old
        site = site.replace(old, new)
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    conf = folder / "nginx.conf"
    conf.write_text(
        f"daemon off;\nworker_processes 1;\npid {folder}/pid;\nerror_log stderr;\n"
        "events { worker_connections 1024; }\n"
        f"http {{\naccess_log off;\n{temporary}\n{site}\n}}\n"
    )
    as_owner = ["-g", "user root;"] if os.getuid() == 0 else []
    command = [program("nginx") or "", "-e", "stderr", "-p", str(folder), "-c", str(conf)]
    url = f"{'https' if tls else 'http'}://{HOST}:{port}"
    with _running(folder, [*command, *as_owner], url) as proxy:
        proxy.authority = tls / "cert.pem" if tls else None
        yield proxy


@contextmanager
def haproxy(
    folder: Path, urls: Sequence[str], changes: Changes = (), *, tls: Path | None = None
) -> Iterator[Proxy]:
    """deploy/haproxy.cfg, in the foreground; with `tls` as for nginx."""
    folder.mkdir(exist_ok=True)
    port = free_port()
    door: Changes = [("bind :8080", f"bind {HOST}:{port}")]
    if tls:
        both = folder / "both.pem"
        both.write_text((tls / "cert.pem").read_text() + (tls / "key.pem").read_text())
        door = [
            ("bind :8080\n", "\n"),
            ("# bind :8443 ", f"bind {HOST}:{port} "),
            ("/etc/ssl/keyturn.pem", str(both)),
        ]
    conf = folder / "haproxy.cfg"
    conf.write_text(exchanged("haproxy.cfg", [*replicas(urls), *door, *changes]))
    command = [program("haproxy") or "", "-db", "-f", str(conf)]
    url = f"{'https' if tls else 'http'}://{HOST}:{port}"
    with _running(folder, command, url) as proxy:
        proxy.authority = tls / "cert.pem" if tls else None
        yield proxy


@contextmanager
def caddy(folder: Path, urls: Sequence[str], changes: Changes = ()) -> Iterator[Proxy]:
    """deploy/Caddyfile for localhost, whose certificate an authority of Caddy's own signs."""
    folder.mkdir(exist_ok=True)
    port = free_port()
    ours = [
        ("keyturn:8000", urlsplit(urls[0]).netloc),
        ("http_port 80\n", f"http_port {free_port()}\n"),
        ("https_port 443\n", f"https_port {port}\n"),
        ("chat.example.org {", "localhost {"),
        *changes,
    ]
    conf = folder / "Caddyfile"
    conf.write_text(exchanged("Caddyfile", ours))
    command = [program("caddy") or "", "run", "--config", str(conf), "--adapter", "caddyfile"]
    home = {"HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    authority = folder / "caddy/pki/authorities/local/root.crt"
    with _running(folder, command, f"https://localhost:{port}", **home) as proxy:
        wait_until(lambda: _certified(port, authority))
        proxy.authority = authority
        yield proxy


PROXIES: Final[dict[str, Callable[..., contextlib.AbstractContextManager[Proxy]]]] = {
    "nginx": nginx,
    "haproxy": haproxy,
    "caddy": caddy,
}


@contextmanager
def _running(folder: Path, command: list[str], url: str, **said: str) -> Iterator[Proxy]:
    out = folder / "said.txt"
    environment = {"PATH": os.environ["PATH"], **said}
    with out.open("wb") as words:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=words,
            stderr=words,
        )  # fmt: skip
    proxy = Proxy(url, process, out)
    try:
        wait_until(lambda: _listens(url) or process.poll() is not None, 20)
        assert process.poll() is None, out.read_text()
        yield proxy
    finally:
        process.terminate()
        try:
            process.wait(2)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


def _certified(port: int, authority: Path) -> bool:
    """Whether it shows a certificate by now, of the authority that it made."""
    with contextlib.suppress(OSError):
        context = ssl.create_default_context(cafile=authority)
        with socket.create_connection((HOST, port), 1) as sock:
            context.wrap_socket(sock, server_hostname="localhost").close()
            return True
    return False


def _listens(url: str) -> bool:
    where = urlsplit(url)
    with contextlib.suppress(OSError), socket.create_connection((HOST, where.port or 0), 1):
        return True
    return False
