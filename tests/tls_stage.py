"""A redis-server that speaks TLS only, and the certificates of a small authority."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.faults.topology_stage import quiet_port
from tests.stage import answers, wait_until

OPENSSL = shutil.which("openssl")


class Authority:
    """Signs certificates, which stand as `name.pem` and `name.key` in its directory."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self.directory = directory
        self._openssl("req -x509 -newkey rsa:2048 -nodes -days 2 -keyout ca.key -out ca.pem", "ca")

    @property
    def ca(self) -> Path:
        """Its own certificate."""
        return self.directory / "ca.pem"

    def certify(self, name: str, names: str = "IP:127.0.0.1") -> tuple[Path, Path]:
        """A certificate for these names, and its key."""
        self._openssl(f"req -newkey rsa:2048 -nodes -keyout {name}.key -out {name}.csr", name)
        extensions = self.directory / f"{name}.ext"
        extensions.write_text(f"subjectAltName={names}\n")
        signing = f"x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2"
        self._openssl(f"{signing} -extfile {extensions} -out {name}.pem")
        return self.directory / f"{name}.pem", self.directory / f"{name}.key"

    def _openssl(self, words: str, subject: str | None = None) -> None:
        assert OPENSSL, "openssl is needed: apt-get install openssl"
        own = ["-subj", f"/CN={subject}"] if subject else []
        command = [OPENSSL, *words.split(), *own]
        subprocess.run(command, cwd=self.directory, check=True, capture_output=True)


@dataclass(frozen=True)
class Encrypted:
    """The server: its port, and a socket on which the test itself reaches it."""

    port: int
    socket: str

    def url(self, host: str = "127.0.0.1", /, **files: Path | str) -> str:
        """Its URL with these options."""
        options = "&".join(f"{name}={value}" for name, value in files.items())
        return f"rediss://{host}:{self.port}/0?{options}"


@contextmanager
def encrypted(
    directory: Path, authority: Authority, names: str, *, asks_clients: bool = False
) -> Iterator[Encrypted]:
    """The server, with a certificate for these names; it may ask clients for one too."""
    program = shutil.which("redis-server") or shutil.which("valkey-server")
    assert program, "redis-server is needed: apt-get install redis-server"
    directory.mkdir()
    certificate, key = authority.certify(f"server-{directory.name}", names)
    port, own_socket = quiet_port(), str(directory / "s")
    words = {
        "--port": 0,
        "--tls-port": port,
        "--bind": "127.0.0.1",
        "--tls-cert-file": certificate,
        "--tls-key-file": key,
        "--tls-ca-cert-file": authority.ca,
        "--tls-auth-clients": "yes" if asks_clients else "no",
        "--unixsocket": own_socket,
        "--save": "",
    }
    command = [program, *(str(each) for pair in words.items() for each in pair)]
    process = subprocess.Popen(command, cwd=directory, stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: answers(own_socket))
        yield Encrypted(port, own_socket)
    finally:
        process.kill()
        process.wait(10)
