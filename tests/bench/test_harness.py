"""The measuring itself: does it count what is there, and find out what is not?"""

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import repeat
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench import proof, speed
from bench.connection import Door, Shape, ask_once, request
from bench.findings import Findings, judged
from bench.load import Crowd, Streams, arrive
from bench.processes import cpu_seconds, family, memory
from bench.speed_stage import Scene, scene
from tests.stage import wait_until


@pytest.fixture(scope="module")
def place() -> Iterator[Scene]:
    with scene() as both_ends:
        yield both_ends


@pytest.fixture
def door(place: Scene) -> Door:
    """The swift upstream, asked directly."""
    return place.direct.door


def test_the_cpu_of_a_family_is_that_of_its_busy_child() -> None:
    """What a child burns counts for its parent, and an idle process costs next to nothing."""
    burn = "import time; end = time.process_time() + 0.5\nwhile time.process_time() < end: pass"
    code = f"import subprocess, sys, time; subprocess.run([sys.executable, '-c', {burn!r}]); "
    with subprocess.Popen([sys.executable, "-c", code + "time.sleep(60)"]) as parent:
        try:
            wait_until(lambda: len(family(parent.pid)) == 2)
            pids = family(parent.pid)
            wait_until(lambda: cpu_seconds(pids) > 0.3, 60)
            assert memory(pids).rss >= memory(pids).pss > 5 << 20
            wait_until(lambda: len(family(parent.pid)) == 1, 60)
            before = cpu_seconds([parent.pid])
            time.sleep(0.2)  # not to wait for anything: this is the time in which it idles
            assert cpu_seconds([parent.pid]) - before < 0.05
        finally:
            parent.kill()


async def test_an_answer_is_what_was_asked_for(door: Door) -> None:
    """All at once, one by one or in one piece: so many chunks, and the end."""
    for shape in (Shape(stream=True, chunks=50), Shape(stream=True, chunks=5, gap_ms=2)):
        answer = await ask_once(door, shape, 10)
        assert answer.done
        assert answer.heard.count(b'"content":"') == shape.chunks + 1  # the role has an empty one
        assert b"data: [DONE]" in answer.heard
    whole = await ask_once(door, Shape(stream=False, chunks=7), 10)
    assert whole.done
    assert whole.heard.count(b"word") == 7


async def test_a_long_answer_waits_for_its_reader(place: Scene, door: Door) -> None:
    """Who reads nothing is not sent it all: upstream itself would be what grows."""
    _, writer = await asyncio.open_connection("127.0.0.1", door.port, limit=1024)
    before = memory(place.direct.pids).rss
    writer.write(request(door, Shape(stream=True, chunks=500_000), b""))
    await asyncio.sleep(0.3)
    assert (await place.books())["open"] == 1
    assert memory(place.direct.pids).rss - before < 20 << 20
    writer.transport.abort()


async def test_every_turn_is_taken_once(place: Scene, door: Door) -> None:
    """A crowd takes as many turns as it is given, and tells those that failed."""
    before = (await place.books())["requests"]
    async with Crowd(door) as crowd:
        await crowd.grow(7)
        good = await crowd.take(repeat(Shape(stream=True), 200), 20)
        failing = await crowd.take(repeat(Shape(stream=True, chunks=0), 20), 20)
    assert (good.whole, good.broken) == (200, 0)
    assert (failing.whole, failing.broken) == (0, 20)
    assert (await place.books())["requests"] == before + 220


async def test_waiting_is_what_upstream_waits(door: Door) -> None:
    """The first byte comes not before upstream sends it; chunks have the delay they have."""
    found = await arrive(door, Shape(stream=True, chunks=3, first_ms=30, gap_ms=5), 50, 0.5, 1)
    assert found.tally.broken == found.late == 0
    assert min(found.first_ms) >= 28  # uvloop's timers are whole ms
    assert len(found.chunk_ms) == 3 * found.tally.whole > 0
    assert min(found.chunk_ms) >= 0


async def test_chunks_of_open_streams_are_all_found(place: Scene, door: Door) -> None:
    """What upstream wrote in a span of time is what was delivered of it."""
    async with Streams(door, Shape(stream=True, chunks=1000, gap_ms=20)) as many:
        await many.grow_to(20, 10)
        before = await place.books()
        await asyncio.sleep(0.3)
        after = await place.books()
        await asyncio.sleep(0.2)
        came = many.delivered(before["at_ns"], after["at_ns"], 1e9)
        assert many.open == 20
    assert came.on_time == len(came.delays_ms) == after["chunks"] - before["chunks"] > 100


def test_ratios_are_taken_within_a_round() -> None:
    """A machine that is slow for a round is slow for both sides; the median says what is left."""
    found = Findings()
    for round_, (ours, theirs) in enumerate([(200, 100), (6000, 3000), (90, 30)]):
        found.add("keyturn", round_, {"whole_us": ours})
        found.add("bare", round_, {"whole_us": theirs})
    assert found.ratio("whole_us", "keyturn", "bare") == 2
    assert found.ratio("whole_us", "keyturn", "nginx") is None


def test_promises_are_judged() -> None:
    """A bound that is kept, one that is missed, and no word of what was not measured."""
    found = Findings()
    found.add("keyturn", 0, {"start_s": 0.5, "on_time_percent": 99.0, "burst_us": 100})
    found.add("portkey", 0, {"burst_us": 500})
    kept = {target.text: kept for target, _, kept in judged(found)}
    assert kept == {
        "start until the first answer": True,
        "chunks of the open streams within 100 ms": False,
        "CPU of 50 chunks at once, Portkey's to ours": True,
    }


def test_a_part_of_the_page_is_written_anew_and_the_rest_stays(tmp_path: Path) -> None:
    """Each part has its place on the page, beside what people write there."""
    page = tmp_path / "proof.md"
    page.write_text("# Proof\n\nBefore.\n\n## Under load\n\n## After\n\nBehind.\n")
    proof.write("bench", "first", page)
    proof.write("soak", "long", page)
    proof.write("bench", "second", page)
    text = page.read_text()
    assert "first" not in text
    assert text.count("second") == text.count("long") == text.count("## Under load") == 1
    assert text.startswith("# Proof\n\nBefore.")
    assert text.endswith("## After\n\nBehind.\n")


def test_the_drawing_has_a_bar_for_every_number(tmp_path: Path) -> None:
    """It is well-formed, and a number that is ten times another has a longer bar."""
    found = Findings()
    for peer, value in (("keyturn", 300.0), ("nginx", 30.0), ("litellm", 30_000.0)):
        found.add(peer, 0, {"whole_us": value})
    proof.draw(found, tmp_path / "load.svg")
    root = ElementTree.parse(tmp_path / "load.svg").getroot()  # noqa: S314  # ours
    bars = [each for each in root if each.tag.endswith("rect")]
    widths = {each.get("class"): float(each.get("width") or 0) for each in bars}
    assert len(bars) == 3
    assert 0 < widths["ours"] < widths["bar"]


async def test_a_small_run_measures_and_judges() -> None:
    """`make bench` from its options to its table, with two peers and little time."""
    options = "--rounds 1 --seconds 0.1 --peer keyturn --peer bare --only cpu --only latency"
    asked = speed.arguments(options.split())
    findings = await speed.measured(asked)
    assert not findings.failures
    for measure in ("whole_us", "burst_us", "paced_us"):
        assert (findings.ratio(measure, "keyturn", "bare") or 0) > 1
    text = proof.bench_section(findings, asked)
    assert "| **Keyturn**, every check and the ledger |" in text
    assert len(list(judged(findings))) == 5
