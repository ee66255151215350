"""Several real Redis servers that stand in for one another: under Sentinels, and as a cluster."""

import random
import shutil
import socket
import subprocess
from bisect import bisect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis
from redis.crc import key_slot

from tests.faults.store_stage import OwnRedis
from tests.stage import answers, wait_until

SERVICE = "mymaster"
NOTICED = 1000  # milliseconds of silence after which a cluster takes a server for dead
# Sentinels ask once a second, and would take whom they have just begun to ask for dead.
SENTINELS_NOTICE = 2500
SLOT = key_slot(b"main")
_BORDERS = (0, 5461, 10923, 16384)
_PORTS = range(12_000, 22_000)  # a cluster's own talk is 10,000 above, below the ephemeral ones


class Node(OwnRedis):
    """A server of several, on TCP, which the test itself reaches by its socket."""

    def __init__(self, directory: Path, tls: Path | None = None) -> None:
        directory.mkdir()
        super().__init__(directory)
        self.port = quiet_port()
        self._lines = [*listening(self.port, tls), "appendonly yes", "repl-diskless-sync-delay 0"]
        self._options: tuple[str, ...] = ()

    def start(self, *options: str) -> None:
        """Start it, and remember how."""
        self._options = options or self._options
        own = [
            f"--{word}" if not at else word
            for line in self._lines
            for at, word in enumerate(line.split())
        ]
        super().start(*own, *self._options)

    def says(self, *command: str | int) -> Any:
        """Its answer to one command."""
        with self.client() as client:
            return client.execute_command(*command)

    def info(self, section: str) -> dict[str, Any]:
        """A section of INFO."""
        with self.client() as client:
            found: dict[str, Any] = client.info(section)
            return found

    def answers(self) -> bool:
        """Whether it answers now."""
        return answers(self.socket)

    def is_primary(self) -> bool:
        """Whether it says so itself."""
        return bool(self.info("replication")["role"] == "master")

    def follows(self) -> bool:
        """Whether it has all that its primary wrote until now."""
        return self.info("replication").get("master_link_status") == "up"


@dataclass
class Group:
    """Servers of which one holds our keys, how a client is told of them, and who else there is."""

    url: str
    nodes: list[Node]
    pair: tuple[Node, Node]  # the one that holds our keys at first, and the one that follows it
    fail_over: Callable[[], None]
    sentinels: list["Sentinel"] = field(default_factory=list)

    def cut(self) -> None:
        """Let the replica have all until now, and nothing of what is written from now on."""
        primary, replica = self.pair
        wait_until(lambda: in_step(primary, replica))
        replica.config("masterauth", "a password that its primary does not take")
        primary.says("CLIENT KILL", "TYPE", "replica")
        wait_until(lambda: not replica.follows())

    def holder(self) -> Node:
        """The one that holds our keys now."""
        return next(node for node in self.pair if node.is_primary())

    def serves(self, node: Node) -> bool:
        """Whether this one would take a write of ours."""
        return node.is_primary() and takes_a_write(node)


def takes_a_write(node: Node) -> bool:
    """Whether it takes one of our keys now."""
    try:
        return bool(node.says("SET", "keyturn:{main}:of-the-test", "1", "PX", 1))
    except redis.RedisError:
        return False


def in_step(primary: Node, replica: Node) -> bool:
    """Whether a replica has all that its primary has."""
    written = primary.info("replication")["master_repl_offset"]
    return replica.follows() and replica.info("replication")["slave_repl_offset"] == written


def quiet_port() -> int:
    """A port that is free with the one for a cluster's own talk, and that no client takes."""
    while True:
        port = random.choice(_PORTS)
        if all(_is_free(each) for each in (port, port + 10_000)):
            return port


def _is_free(port: int) -> bool:
    with closing(socket.socket()) as door:
        try:
            door.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def listening(port: int, tls: Path | None) -> list[str]:
    """The lines of a configuration that say where to listen, and how to speak to others."""
    if not tls:
        return [f"port {port}", "bind 127.0.0.1"]
    files = [f"tls-{kind}-file {tls}/{kind}.pem" for kind in ("cert", "key", "ca-cert")]
    both = ["tls-auth-clients no", "tls-replication yes", "tls-cluster yes"]
    return ["port 0", f"tls-port {port}", "bind 127.0.0.1", *files, *both]


def certify(directory: Path) -> Path:
    """A certificate for 127.0.0.1 that vouches for itself, in files named as Redis' options."""
    said = "req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=keyturn -addext"
    words = [*said.split(), "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run(["openssl", *words], cwd=directory, check=True, capture_output=True)
    shutil.copy(directory / "cert.pem", directory / "ca-cert.pem")
    return directory


# -- Sentinels


class Sentinel:
    """A Sentinel that watches a primary."""

    def __init__(self, directory: Path, watched: Node, tls: Path | None) -> None:
        directory.mkdir()
        self.port = quiet_port()
        self._socket = str(directory / "s")
        file = directory / "sentinel.conf"
        own = [
            *listening(self.port, tls),
            f"unixsocket {self._socket}",
            f"dir {directory}",
            f"sentinel monitor {SERVICE} 127.0.0.1 {watched.port} 2",
            f"sentinel down-after-milliseconds {SERVICE} {SENTINELS_NOTICE}",
            f"sentinel failover-timeout {SERVICE} 5000",
        ]
        file.write_text("\n".join(own) + "\n")
        program = shutil.which("redis-server") or shutil.which("valkey-server") or ""
        self.process = subprocess.Popen(
            [program, str(file), "--sentinel"], stdout=subprocess.DEVNULL
        )

    def knows(self) -> tuple[str, int, int]:
        """What it says of the primary: flags, replicas, other Sentinels."""
        try:
            with redis.Redis(unix_socket_path=self._socket) as client:
                said = client.sentinel_master(SERVICE)
        except redis.RedisError:
            return "", 0, 0
        return said["flags"], said["num-slaves"], said["num-other-sentinels"]

    def says(self, *command: str) -> Any:
        """Its answer to one command."""
        with redis.Redis(unix_socket_path=self._socket) as client:
            return client.execute_command(*command)

    def kill(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait(10)


@contextmanager
def sentinels(directory: Path, tls: Path | None = None) -> Iterator[Group]:
    """A primary, a replica, and three Sentinels that know of each other."""
    first, second = Node(directory / "first", tls), Node(directory / "second", tls)
    with ExitStack() as stack:
        for node in (first, second):
            stack.callback(node.kill)
        first.start()
        first.ready()
        second.start("--replicaof", "127.0.0.1", str(first.port))
        wait_until(second.follows)
        watching = [Sentinel(directory / f"s{n}", first, tls) for n in range(3)]
        for each in watching:
            stack.callback(each.kill)
        wait_until(lambda: all(each.knows() == ("master", 1, 2) for each in watching))
        hosts = ",".join(f"127.0.0.1:{each.port}" for each in watching)
        url = f"redis{'s' if tls else ''}+sentinel://{hosts}/{SERVICE}"

        def fail_over() -> None:
            watching[0].says("SENTINEL FAILOVER", SERVICE)

        yield Group(url, [first, second], (first, second), fail_over, watching)


# -- a cluster


@contextmanager
def cluster(directory: Path, tls: Path | None = None) -> Iterator[Group]:
    """Three primaries, each with a replica."""
    nodes = [Node(directory / f"n{number}", tls) for number in range(6)]
    own = ("--cluster-enabled", "yes", "--cluster-node-timeout", str(NOTICED))
    with ExitStack() as stack:
        for node in nodes:
            stack.callback(node.kill)
            node.start(*own)
        for node in nodes:
            node.ready()
        _form(nodes)
        ours = bisect(_BORDERS, SLOT) - 1
        pair = nodes[ours], nodes[3 + ours]
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in nodes[:3])

        def fail_over() -> None:
            pair[1].says("CLUSTER FAILOVER")

        yield Group(f"redis{'s' if tls else ''}+cluster://{hosts}", nodes, pair, fail_over)


def _form(nodes: list[Node]) -> None:
    primaries, replicas = nodes[:3], nodes[3:]
    for number, node in enumerate(primaries):
        node.says("CLUSTER ADDSLOTSRANGE", _BORDERS[number], _BORDERS[number + 1] - 1)
        node.says("CLUSTER SET-CONFIG-EPOCH", number + 1)
    for node in nodes[1:]:
        node.says("CLUSTER MEET", "127.0.0.1", nodes[0].port)
    wait_until(lambda: all(_knows_all(node, len(nodes)) for node in nodes))
    for primary, replica in zip(primaries, replicas, strict=True):
        replica.says("CLUSTER REPLICATE", primary.says("CLUSTER", "MYID"))
    wait_until(lambda: all(replica.follows() for replica in replicas), 20)
    wait_until(lambda: all(is_whole(node) for node in nodes), 20)


def _knows_all(node: Node, count: int) -> bool:
    known = node.says("CLUSTER NODES")
    return len(known) == count and not any("handshake" in each["flags"] for each in known.values())


def is_whole(node: Node) -> bool:
    """Whether it finds every slot served."""
    return bool(node.says("CLUSTER INFO")["cluster_state"] == "ok")


TOPOLOGIES = [sentinels, cluster]
