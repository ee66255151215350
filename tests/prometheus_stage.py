"""What a scrape finds, and a real Prometheus that scrapes."""

import re

import aiohttp

METRICS_TOKEN = "a-token-for-metrics-of-tests-only-8fQ2xL7v"
Found = dict[tuple[str, frozenset[tuple[str, str]]], float]

_LINE = re.compile(r"([a-z_]+)(?:\{(.*)\})? (\S+)")
_LABEL = re.compile(r'([a-z_]+)="((?:[^"\\]|\\.)*)"')


async def read(url: str) -> Found:
    """Every series that a server shows at this moment."""
    headers = {"Authorization": f"Bearer {METRICS_TOKEN}", "Connection": "close"}
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session,
        session.get(f"{url}/metrics", headers=headers) as answer,
    ):
        assert answer.status == 200, await answer.text()
        text = await answer.text()
    lines = [_LINE.fullmatch(line) for line in text.splitlines() if not line.startswith("#")]
    assert all(lines)
    return {
        (line[1], frozenset(_LABEL.findall(line[2] or ""))): float(line[3])
        for line in lines
        if line
    }


def value(found: Found, name: str, **labels: str) -> float:
    """The value of the one series of this name and these labels; of several their sum is not it."""
    return found[name, frozenset(labels.items())]
