"""What a scrape finds, and a real Prometheus that scrapes."""

import asyncio
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode
from urllib.request import urlopen

import aiohttp
import pytest
import yaml

from tests.command_stage import answers, free_port
from tests.stage import ROOT, wait_until

METRICS_TOKEN: Final = "a-token-for-metrics-of-tests-only-8fQ2xL7v"
DEPLOY: Final = ROOT / "deploy"
NEEDS_PROMETHEUS: Final = pytest.mark.skipif(
    shutil.which("prometheus") is None or shutil.which("promtool") is None,
    reason="prometheus is not on PATH: apt-get install prometheus",
)
Found = dict[tuple[str, frozenset[tuple[str, str]]], float]

_LINE: Final = re.compile(r"([a-z_]+)(?:\{(.*)\})? (\S+)")
_LABEL: Final = re.compile(r'([a-z_]+)="((?:[^"\\]|\\.)*)"')


async def read(url: str) -> Found:
    """Every series that a server shows at this moment."""
    headers = {"Authorization": f"Bearer {METRICS_TOKEN}", "Connection": "close"}
    timeout = aiohttp.ClientTimeout(total=20)
    async with (
        aiohttp.ClientSession(timeout=timeout) as session,
        session.get(f"{url}/metrics", headers=headers) as answer,
    ):
        text = await answer.text()
        assert answer.status == 200, text
    return dict(_series(line) for line in text.splitlines() if not line.startswith("#"))


def _series(line: str) -> tuple[tuple[str, frozenset[tuple[str, str]]], float]:
    found = _LINE.fullmatch(line)
    assert found, line
    return (found[1], frozenset(_LABEL.findall(found[2] or ""))), float(found[3])


def value(found: Found, name: str, **labels: str) -> float:
    """The value of the one series of this name and exactly these labels."""
    return found[name, frozenset(labels.items())]


class Prometheus:
    """A Prometheus that runs."""

    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, path: str, **query: str) -> Any:
        """What its API says."""
        question = f"{self.url}/api/v1/{path}?{urlencode(query)}"
        with urlopen(question, timeout=10) as answer:  # noqa: S310
            said = json.load(answer)
        assert said["status"] == "success", said
        return said["data"]

    def values(self, expression: str) -> list[float]:
        """The value of each series that an expression finds now; what is no number is left out."""
        found = self.ask("query", query=expression)["result"]
        return [each for row in found if (each := float(row["value"][1])) == each]

    async def values_of(self, expression: str) -> list[float]:
        """The same, while others of this loop go on."""
        return await asyncio.to_thread(self.values, expression)


@contextmanager
def prometheus(folder: Path, target: str) -> Iterator[Prometheus]:
    """Prometheus as `deploy/` sets it up, for one target; in a hurry it scrapes each second."""
    config = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())
    (job,) = config["scrape_configs"]
    job["static_configs"] = [{"targets": [target.removeprefix("http://")]}]
    job["authorization"] = {"credentials_file": str(folder / "token")}
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(DEPLOY / "alerts.yml")]
    (folder / "token").write_text(METRICS_TOKEN)
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    address = f"127.0.0.1:{free_port()}"
    command = ["prometheus", f"--config.file={folder}/prometheus.yml"]
    command += [f"--storage.tsdb.path={folder}/data", f"--web.listen-address={address}"]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        wait_until(lambda: answers(f"http://{address}", "/-/ready"), 30)
        yield Prometheus(f"http://{address}")
    finally:
        process.kill()
        process.wait(10)
