"""The visitor on the command line, against servers that are right, wrong and absent."""

import asyncio
import copy
import json
import re
import sys
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import pytest

from house import Keyturn
from security.budget import Hold
from security.errors import Rejection, Standing
from security.ledger import Ledger
from security.one_time_token import Claims, TokenSigner
from security.scripts import Turn, Verdict, Visitor
from settings import Settings
from tests.command_stage import CANARY, START_LIMIT, free_port, run, scrubbed, server_py
from tests.stage import ROOT, Upstream, serving, settings_with
from tests.upstream import play as script

SCRIPT = str(ROOT / "test_client.py")
STEPS = 11
ENVIRONMENT = {
    "OPENAI_API_KEY": f"sk-{CANARY}",
    "OPENAI_ADMIN_KEY": f"sk-admin-{CANARY}",
    "OPENAI_ORG_ID": f"org-{CANARY}",
    "OPENAI_PROJECT_ID": f"proj-{CANARY}",
    "OPENAI_CUSTOM_HEADERS": f"X-Canary: {CANARY}\nAuthorization: Bearer {CANARY}",
}
PLAIN_SDK = """
import openai, sys
client = openai.OpenAI(base_url=sys.argv[1], max_retries=0)
client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}])
"""


@pytest.fixture
def settings(redis_url: str, upstream: Upstream) -> Settings:
    """A server for this loop; its limits are the default ones."""
    return settings_with(
        redis_url=redis_url,
        openai_base_url=upstream.url,
        rate_limit="30/minute",
        start_limit="60/hour",
    )


async def play(url: str, *arguments: str, cwd: Path) -> tuple[int, str]:
    """Run the script against a server of this loop; its exit code and all it printed."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, SCRIPT, "--url", url, *arguments),
        cwd=cwd,
        env=scrubbed(),
        stdout=PIPE,
        stderr=STDOUT,
    )
    async with asyncio.timeout(START_LIMIT):
        said, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode()


def failed(said: str) -> list[str]:
    """The names of the steps that it says failed."""
    return [line[8:].split("  ")[0] for line in said.splitlines() if line.startswith("FAILED")]


def test_all_is_well_with_a_server_of_default_settings(tmp_path: Path) -> None:
    """Against `python server.py` every step is ok, and the answer is shown as it came."""
    with server_py(tmp_path) as running:
        came = run(sys.executable, SCRIPT, "--url", running.url, cwd=tmp_path)
    assert came.returncode == 0, came.stdout + came.stderr
    lines = [line for line in came.stdout.splitlines() if line.startswith("ok ")]
    assert len(lines) == STEPS
    assert all(re.match(r"ok      \S.{37}  expected (.+), came \1$", line) for line in lines)
    assert "Keyturn's demo upstream" in came.stdout.partition("a first turn")[0]
    assert came.stdout.endswith("\nall as expected\n")


@dataclass
class Forgetful:
    """A ledger that admits a spent token again."""

    ledger: Ledger

    async def redeem(self, rid: str, visitor: Visitor, turn: Turn) -> Verdict:
        """What the ledger says, unless it says that the token was used."""
        try:
            return await self.ledger.redeem(rid, visitor, turn)
        except Rejection as refusal:
            if refusal.code != "token_reused" or refusal.standing is None:
                raise
            return Verdict(
                turn.number + 1, turn.born_ms, turn.born_ms, refusal.standing, Hold(0, 1, 0)
            )

    async def probe(self, rid: str, visitor: Visitor) -> Standing:
        """As the ledger does."""
        return await self.ledger.probe(rid, visitor)


@dataclass
class Careless(Forgetful):
    """A ledger that does not look at Idempotency-Keys."""

    async def redeem(self, rid: str, visitor: Visitor, turn: Turn) -> Verdict:
        """As the ledger does for a visitor who sends none."""
        return await self.ledger.redeem(rid, visitor, replace(turn, idempotency=""))


@dataclass
class Credulous:
    """A signer that believes every signature."""

    signer: TokenSigner

    def sign(self, claims: Claims) -> str:
        """As the signer does."""
        return self.signer.sign(claims)

    def unsign(self, token: str, *, now_ms: int) -> Claims:
        """What the token says, whoever signed it."""
        said = self.signer._serializer.loads_unsafe(token)[1]
        return Claims(said["c"], said["n"], said["b"], said["i"], said["e"], said["f"])


def forgetful(keyturn: Keyturn) -> Keyturn:
    """A house in which a spent token is good again."""
    gate = copy.copy(keyturn.gate)
    gate._ledger = cast(Ledger, Forgetful(keyturn.ledger))
    return replace(keyturn, gate=gate)


def careless(keyturn: Keyturn) -> Keyturn:
    """A house in which a lost answer stays lost."""
    gate = copy.copy(keyturn.gate)
    gate._ledger = cast(Ledger, Careless(keyturn.ledger))
    return replace(keyturn, gate=gate)


def credulous(keyturn: Keyturn) -> Keyturn:
    """A house in which a forged token is good."""
    gate = copy.copy(keyturn.gate)
    gate._signer = cast(TokenSigner, Credulous(gate._signer))
    return replace(keyturn, gate=gate)


def timeless(keyturn: Keyturn) -> Keyturn:
    """A house in which it does not matter when a request was made."""
    gate = copy.copy(keyturn.gate)
    gate._max_skew = 10**9
    return replace(keyturn, gate=gate)


def faceless(keyturn: Keyturn) -> Keyturn:
    """A house in which all fingerprints look the same."""
    gate = copy.copy(keyturn.gate)
    keyed_hash = gate._hash
    gate._hash = lambda label, text: keyed_hash(label, b"" if label == "fp" else text)  # type: ignore[assignment]
    return replace(keyturn, gate=gate)


@pytest.mark.parametrize(
    ("around", "step"),
    [
        (forgetful, "the same token once more"),
        (timeless, "a timestamp of yesterday"),
        (faceless, "another browser's fingerprint"),
        (credulous, "a forged token"),
        (careless, "its answer is lost: the same key again"),
    ],
)
async def test_a_check_that_is_missing_is_noticed(
    around: Callable[[Keyturn], Keyturn], step: str, settings: Settings, tmp_path: Path
) -> None:
    """A server without one of its checks gives exit code 1, and the step is named."""
    async with serving(settings, around=around) as server:
        code, said = await play(server.url, cwd=tmp_path)
    assert code == 1
    assert failed(said)[0] == step, said


async def test_the_doubles_are_right_otherwise(settings: Settings, tmp_path: Path) -> None:
    """Control: the server that those are made from, with no check missing, is all as expected."""
    async with serving(settings) as server:
        code, said = await play(server.url, cwd=tmp_path)
    assert (code, failed(said)) == (0, [])


async def test_a_server_without_grace_is_as_good(settings: Settings, tmp_path: Path) -> None:
    """Where reuse revokes the chain the visitor begins another one, and all is as expected."""
    strict = settings.model_copy(update={"reuse_grace": 0})
    async with serving(strict) as server:
        code, said = await play(server.url, cwd=tmp_path)
    assert (code, failed(said)) == (0, [])


async def test_the_answer_is_shown_while_it_comes(settings: Settings, tmp_path: Path) -> None:
    """The first words can be read while the answer is far from its end."""
    message = script(words=2, text="early ", hang_after=1)
    async with serving(settings) as server:
        arguments = (SCRIPT, "--url", server.url, "--message", message)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, *arguments), cwd=tmp_path, env=scrubbed(), stdout=PIPE
        )
        try:
            assert process.stdout
            async with asyncio.timeout(START_LIMIT):
                assert (await process.stdout.readuntil(b"early ")).strip() == b"early"
            assert process.returncode is None
        finally:
            process.kill()
            await process.wait()


async def test_a_broken_answer_is_one_plain_sentence(settings: Settings, tmp_path: Path) -> None:
    """Where an answer breaks off in the middle the exit code is 1, and one sentence says so."""
    async with serving(settings) as server:
        code, said = await play(server.url, "--message", script(error_after=1), cwd=tmp_path)
    assert code == 1
    assert "an answer broke off: " in said.splitlines()[-1]
    assert "Traceback" not in said


async def test_nothing_of_the_environment_is_sent(upstream: Upstream, tmp_path: Path) -> None:
    """Keys, organisation, project and headers of the environment stay here, and so does `.env`.

    The upstream, which gives no tokens, stands in for a server: it keeps what it is sent.
    """
    (tmp_path / ".env").write_text("".join(f"{n}={v!r}\n" for n, v in ENVIRONMENT.items()))
    proxied = {"HTTP_PROXY": "http://127.0.0.1:1", "ALL_PROXY": "http://127.0.0.1:1"}
    arguments = ("--url", upstream.url, "--model", "m")
    said = {**ENVIRONMENT, **proxied}
    came = await asyncio.to_thread(
        lambda: run(sys.executable, SCRIPT, *arguments, cwd=tmp_path, **said)
    )
    assert failed(came.stdout)[0] == "a first turn, without a token"
    assert came.returncode == 1
    sent = await upstream.books()
    assert len(sent) == 1
    assert sent[0]["authorization"] == "Bearer keyturn"
    assert CANARY not in json.dumps(sent)

    await upstream.forget()
    await asyncio.to_thread(
        lambda: run(sys.executable, "-c", PLAIN_SDK, upstream.url, cwd=tmp_path, **ENVIRONMENT)
    )
    control = await upstream.books()
    assert json.dumps(control).count(CANARY) >= 4, "the SDK does send them when it is let"


def test_no_server_is_one_plain_sentence(tmp_path: Path) -> None:
    """Where nobody listens the exit code is 1, and one sentence says so."""
    url = f"http://127.0.0.1:{free_port()}"
    came = run(sys.executable, SCRIPT, "--url", url, cwd=tmp_path)
    assert (came.returncode, came.stdout) == (1, "")
    assert came.stderr == f"{url} cannot be reached, or fell silent: is it at this --url?\n"


async def test_another_server_is_one_plain_sentence(upstream: Upstream, tmp_path: Path) -> None:
    """Where something else answers the exit code is 1, and one sentence says so."""
    came = await play(upstream.url, cwd=tmp_path)
    assert came == (1, f"{upstream.url}/ answers, but not like Keyturn\n")


def test_wrong_usage_of_it(tmp_path: Path) -> None:
    """An address that is none is wrong usage: exit code 2."""
    came = run(sys.executable, SCRIPT, "--url", "localhost:8000", cwd=tmp_path)
    assert came.returncode == 2
    assert "--url should begin with http:// or https://" in came.stderr
