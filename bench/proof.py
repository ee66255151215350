"""What was found, as a part of `docs/proof.md` and as a drawing beside it.

Each part of the page that is written here stands between two comments that name it; all else on the
page is left as it is.
"""

import argparse
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final

from bench import drawing
from bench.findings import MEASURES, Findings, judged
from bench.install import LITELLM, LITELLM_VERSION, PORTKEY, PORTKEY_VERSION, nginx_program
from bench.peers import PEERS
from tests.stage import ROOT

PAGE: Final = ROOT / "docs" / "proof.md"
DRAWING: Final = ROOT / "docs" / "load.svg"
DRAWN: Final = ("whole_us", "burst_us", "paced_us")
HEADING: Final = "## Under load"
FAULTS_HEADING: Final = "## Under faults"
TITLES: Final = {"direct": "upstream asked directly: its own CPU"} | {
    peer.name: peer.title for peer in PEERS
}
TABLES: Final = (
    ("CPU of a turn, and what is added to it", ("whole_us", "burst_us", "paced_us")),
    ("Waiting", ("first_p50_ms", "first_p99_ms", "chunk_p99_ms")),
    (
        "{streams} open streams, a chunk a second each",
        ("open", "on_time_percent", "stream_p99_ms", "stream_kib", "stream_core_percent"),
    ),
    ("Start and rest", ("start_s", "idle_mib", "redis_before", "redis_after")),
)
PICTURE: Final = f"![CPU of a turn, beside other proxies]({DRAWING.name})"
_OPTIONS: Final = ("rounds", "seconds", "streams", "deaf", "seed", "minutes", "rate")
WORDS: Final = """\
Upstream, the client that asks, and Redis share a core; the peer has the other one to itself (one
worker). All peers get the same requests, three messages and a few headers. Numbers are medians of
the rounds (least – greatest). CPU is user and system time of the peer's processes, as the kernel
counts it, in short slices that the peers take in turns; ratios are those within a slice, so they
are not always the ratios of the medians. "One at a time" is 20 ms until the first chunk and 10 ms
between two. Waiting is measured on 10 chunks, 20 ms apart, at {rate:.0f} turns a second that come
at random (LiteLLM: {slow:.0f}), and what is added is told against the same turns asked directly in
the same round."""


def bench_section(findings: Findings, asked: argparse.Namespace) -> str:
    """The tables, the promises and what was measured on, as Markdown."""
    rates = [peer.rate for peer in PEERS]
    parts = [machine(asked), WORDS.format(rate=max(rates), slow=min(rates)), PICTURE]
    for title, measures in TABLES:
        if lines := list(_table(findings, measures)):
            parts.append(f"### {title.format(streams=f'{asked.streams:,}')}\n\n" + "\n".join(lines))
    parts.append("### Promises\n\n" + "\n".join(_promises(findings)))
    if findings.failures:
        told = dict.fromkeys(findings.failures)
        parts.append("Not measured:\n\n" + "\n".join(f"- {each}" for each in told))
    return "\n\n".join(parts)


def machine(asked: argparse.Namespace) -> str:
    """Date, machine, versions and how it was asked for."""
    said = " ".join(f"--{name} {value}" for name, value in _options(asked))
    return f"{date_and_size()}. {versions()}. Asked for by `{said}`."


def date_and_size() -> str:
    """Today, and how large this machine is."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    size = f"{os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()} {platform.release()}"
    return f"{datetime.now(UTC):%Y-%m-%d}, {size}"


def _options(asked: argparse.Namespace) -> Iterator[tuple[str, object]]:
    for name, value in vars(asked).items():
        if name in _OPTIONS and value is not None:
            yield name, f"{value:g}" if isinstance(value, float) else value


def own_versions() -> list[str]:
    """What Keyturn itself runs on."""
    packages = ("uvicorn", "uvloop", "fastapi", "aiohttp", "redis", "openai")
    found = [f"Python {platform.python_version()}"]
    found += [f"{name} {version(name)}" for name in packages]
    return [*found, said_by("redis-server", "--version", r"v=(\S+)", "Redis")]


def versions() -> str:
    """What ran."""
    found = own_versions()
    if program := nginx_program():
        found.append(said_by(program, "-v", r"nginx/(\S+)", "nginx"))
    if LITELLM.exists():
        found.append(f"LiteLLM {LITELLM_VERSION}")
    if PORTKEY.exists():
        found.append(f"Portkey {PORTKEY_VERSION} on Node {said_by('node', '-v', r'v(.+)', '')}")
    return ", ".join(found)


def said_by(program: str, option: str, pattern: str, name: str) -> str:
    """What a program calls its version, behind a name."""
    path = shutil.which(program)
    if not path:
        return f"{name} not found"
    said = subprocess.run([path, option], capture_output=True, text=True, timeout=10, check=False)
    found = re.search(pattern, said.stdout + said.stderr)
    return f"{name} {found[1] if found else '?'}".strip()


def _table(findings: Findings, measures: Sequence[str]) -> Iterator[str]:
    named = [name for name in TITLES if any((name, each) in findings.numbers for each in measures)]
    shown = [each for each in measures if any((name, each) in findings.numbers for name in named)]
    if not shown:
        return
    heads = [f"{MEASURES[each].title}, {MEASURES[each].unit}".rstrip(", ") for each in shown]
    yield f"| | {' | '.join(heads)} |"
    yield "| --- |" + " ---: |" * len(shown)
    for name in named:
        yield f"| {TITLES[name]} | {' | '.join(_cell(findings, name, each) for each in shown)} |"


def _cell(findings: Findings, peer: str, measure: str) -> str:
    value = findings.median(peer, measure)
    if value is None:
        return "–"
    digits = MEASURES[measure].digits
    least, greatest = findings.spread(peer, measure)
    spread = f" ({least:,.{digits}f} – {greatest:,.{digits}f})" if least < greatest else ""
    return f"{value:,.{digits}f}{spread}"


def _promises(findings: Findings) -> Iterator[str]:
    yield "| promise | found | bound | |"
    yield "| --- | ---: | ---: | --- |"
    for target, value, kept in judged(findings):
        bound = f"{'≥' if target.at_least else '≤'} {target.bound:g}{target.unit}"
        yield f"| {target.text} | {value:,.2f}{target.unit} | {bound} | {_word(kept)} |"


def _word(kept: bool) -> str:
    return "kept" if kept else "**missed**"


def write(name: str, text: str, page: Path = PAGE, *, heading: str = HEADING) -> None:
    """Put a part into the page, in place of the one of that name or under its heading."""
    begin, end = f"<!-- {name}: written by make {name} -->", f"<!-- end of {name} -->"
    part = f"{begin}\n{text}\n{end}\n"
    old = page.read_text() if page.exists() else "# Proof\n"
    if f"{heading}\n" not in old:
        old = f"{old.rstrip()}\n\n{heading}\n"
    before, found, rest = old.partition(begin)
    if found:
        new = before + part.rstrip() + rest.partition(end)[2]
    else:
        new = old.replace(f"{heading}\n", f"{heading}\n\n{part}", 1)
    page.write_text(new)


def draw(findings: Findings, to: Path = DRAWING) -> None:
    """The CPU of a turn, drawn."""
    groups = []
    for measure in DRAWN:
        bars = [(peer, findings.median(peer, measure)) for peer in TITLES if peer != "direct"]
        shown = [(TITLES[peer], value, peer == "keyturn") for peer, value in bars if value]
        groups.append((MEASURES[measure].title, shown))
    to.write_text(
        drawing.bars("CPU of a turn, µs (each step to the right is 10 times more)", groups)
    )
