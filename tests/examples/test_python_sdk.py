"""`python examples/python_sdk.py` as its reader runs it, against servers that are there or not."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from tests.command_stage import CANARY, free_port, run, server_py
from tests.cutting_proxy import cutting_proxy
from tests.examples.sdk_stage import chains
from tests.stage import ROOT, Server, Upstream
from tests.upstream import play

SCRIPT = str(ROOT / "examples" / "python_sdk.py")
ALONE = {"PYTHONPATH": ""}  # nothing of Keyturn's own modules is at hand


def chat(cwd: Path, *arguments: str, **said: str) -> "subprocess.CompletedProcess[str]":
    """Run the example to its end."""
    return run(sys.executable, SCRIPT, *arguments, cwd=cwd, **{**ALONE, **said})


def test_it_chats_with_a_server_of_default_settings(tmp_path: Path) -> None:
    """Against `python server.py`: three turns of one conversation, then two at once."""
    with server_py(tmp_path) as running:
        came = chat(tmp_path, "--url", running.url, "--message", "Good evening!")
    assert (came.returncode, came.stderr) == (0, "")
    questions = [line[2:] for line in came.stdout.splitlines() if line.startswith("> ")]
    assert questions[:3] == ["Good evening!", "Go on.", "Thank you!"]
    assert len(questions) == 5
    assert came.stdout.count("Keyturn's demo upstream") == 5
    assert "message number 3 of our conversation" in came.stdout


async def test_it_keeps_one_chain_for_each_client(
    server: Server, upstream: Upstream, tmp_path: Path
) -> None:
    """The conversation is a chain of three turns, and what is asked at once is one of two."""
    (tmp_path / ".env").write_text(f"OPENAI_API_KEY=sk-{CANARY}\n")
    said = {"OPENAI_API_KEY": f"sk-{CANARY}"}
    async with cutting_proxy(server.url) as proxy:
        came = await asyncio.to_thread(lambda: chat(tmp_path, "--url", f"{proxy.url}/v1/", **said))
    assert came.returncode == 0, came.stderr
    assert await chains(server) == [2, 3]
    assert CANARY not in repr(proxy.carried)
    heard = [len(entry["body"]["messages"]) for entry in await upstream.books()]
    assert heard == [1, 3, 5, 1, 1]


@pytest.mark.parametrize("message", [play(status=500, body={}), play(error_after=1)])
async def test_a_failure_is_one_plain_sentence(
    message: str, server: Server, tmp_path: Path
) -> None:
    """Refused or broken off: exit code 1, and the last line says so."""
    came = await asyncio.to_thread(
        lambda: chat(tmp_path, "--url", server.url, "--message", message)
    )
    assert came.returncode == 1
    (line,) = came.stderr.splitlines()
    assert line.startswith("refused, or broken off: ")
    assert line.endswith("The model's server cannot be reached. Use the next token.")


def test_no_server_is_one_plain_sentence(tmp_path: Path) -> None:
    """Where nobody listens the exit code is 1, and one sentence says so."""
    url = f"http://127.0.0.1:{free_port()}"
    came = chat(tmp_path, "--url", url)
    assert (came.returncode, came.stdout) == (1, "")
    assert came.stderr == f"{url} cannot be reached, or fell silent: is it at this --url?\n"
