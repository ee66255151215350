"""One of the clients that ask all at once; run as a process.

Reads one line of JSON, {"url", "seed", "turns", "exact", "part", "parts", "at_once"}, takes its
part of the seed's turns, and tells how each ended.
"""

import asyncio
import json
import sys
import time
from dataclasses import asdict, dataclass

import aiohttp

from bench.plan import BEFORE_THE_ANSWER, Turn, chains, plan

DELTA = b'"delta": {"content": "'
LIMIT = 90  # seconds for one turn
SILENCE = 0.06  # seconds after which a client leaves that gets no answer


@dataclass
class Ended:
    """How a turn ended: the code of a refusal or "ok", deltas seen, and whether the client left."""

    number: int
    code: str = "ok"
    deltas: int = 0
    left: bool = False
    token: str | None = None


async def take(session: aiohttp.ClientSession, url: str, turn: Turn, token: str | None) -> Ended:
    """Take one turn as it was planned."""
    ended = Ended(turn.number)
    patience = SILENCE if turn.hang_up == BEFORE_THE_ANSWER else LIMIT
    try:
        async with asyncio.timeout(patience):
            await _ask(session, url, turn, token, ended)
    except TimeoutError:
        ended.left, ended.code = True, "ok" if patience == SILENCE else "no answer"
    except aiohttp.ClientError:
        ended.code = "broken" if ended.code == "ok" else ended.code
    return ended


async def _ask(
    session: aiohttp.ClientSession, url: str, turn: Turn, token: str | None, ended: Ended
) -> None:
    async with session.post(
        f"{url}/v1/chat/completions", data=turn.body(), headers=headers(turn, token)
    ) as answer:
        ended.token = answer.headers.get("Keyturn-Token")
        if answer.status >= 400:
            said = await answer.json(content_type=None)
            ended.code = said["code"] if said else str(answer.status)
            return
        seen, rest = 0, b""
        while turn.hang_up is None or seen < max(turn.hang_up, 0):
            if not (piece := await answer.content.readany()):
                return
            rest += piece
            seen = rest.count(DELTA)
            ended.deltas = seen
        ended.left = b"data: [DONE]" not in rest
        answer.close()


def headers(turn: Turn, token: str | None) -> dict[str, str]:
    """The headers of a turn; every fourth one has a connection of its own."""
    said = {
        "Content-Type": "application/json",
        "Keyturn-Timestamp": str(time.time_ns() // 1_000_000),
        "Keyturn-Fingerprint": "fingerprint-of-a-visitor",
        "X-Forwarded-For": turn.address,
    }
    if token:
        said["Authorization"] = f"Bearer {token}"
    if turn.number % 4 == 0:
        said["Connection"] = "close"
    return said


def new_session() -> aiohttp.ClientSession:
    """A client that opens as many connections as it needs."""
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))


async def rush(url: str, waiting: list[list[Turn]], at_once: int) -> list[Ended]:
    """Take all of these chains of turns, so many at a time."""
    left, ended = iter(waiting), list[Ended]()

    async def visitor(session: aiohttp.ClientSession) -> None:
        for chain in left:
            token = None
            for turn in chain:
                ended.append(await take(session, url, turn, token))
                token = ended[-1].token

    async with new_session() as session:
        await asyncio.gather(*(visitor(session) for _ in range(at_once)))
    return ended


async def main() -> None:
    """Be one client."""
    work = json.loads(sys.stdin.readline())
    mine = chains(plan(work["seed"], work["turns"], exact=work["exact"]))
    mine = mine[work["part"] :: work["parts"]]
    ended = await rush(work["url"], mine, work["at_once"])
    print(json.dumps([asdict(each) for each in ended]))


if __name__ == "__main__":
    asyncio.run(main())
