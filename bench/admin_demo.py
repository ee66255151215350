"""Something to see on the operator's page: a server, and visitors of many kinds: `make admin-demo`.

The law: nothing of the operator's is used. The server runs in a directory of its own, on embedded
parts, with a token made for this run; answers are made up, also those to visitors' own keys. All of
it ends after some minutes, or by Ctrl-C.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import aiohttp

from embedded.child_upstream import child_upstream

SERVER: Final = Path(__file__).parent.parent / "server.py"
START_LIMIT: Final = 40.0
CHAT: Final = "/v1/chat/completions"
MOST_AN_HOUR: Final = 30_000  # turns, whatever is asked for
PAUSES: Final = (0.5, 4.0)
SAYINGS: Final = ("Hello!", "How do I brew coffee?", "And tea?", "Tell me of one-time tokens.")
SETTINGS: Final = {
    "RATE_LIMIT": "60/minute",
    "DAILY_BUDGET_USD": "1.00",
    "VISITOR_DAILY_BUDGET_USD": "0.05",
    "MAX_OUTPUT_TOKENS": "300",
    "TRUSTED_PROXIES": "127.0.0.1",  # each visitor says which address is theirs
    "LOG_LEVEL": "error",
}


class Guest:
    """A visitor with an address, a fingerprint and a token, who at times does what is refused."""

    def __init__(self, session: aiohttp.ClientSession, url: str, number: int) -> None:
        self._session = session
        self._url = url
        self._dice = random.Random(number)
        self._address = f"203.0.113.{number + 1}"
        self._fingerprint = secrets.token_urlsafe(16)
        self._token: str | None = None
        self._spent: str | None = None
        self.turns = 0

    async def chat(self, until: float, most: int) -> None:
        """Take turns, mostly good ones, until it is time, and at most so many."""
        ways: list[Callable[[], Awaitable[int]]] = [self._odd, self._late, self._replay]
        ways += [self._stranger, self._other_browser, self._own_key, self._crowd]
        weights = [3, 1, 2, 1, 1, 4, 1]
        while time.monotonic() < until and self.turns < most:
            way = self._dice.choices([self._good, *ways], [40, *weights])[0]
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                await way()
            self.turns += 1
            await asyncio.sleep(self._dice.uniform(*PAUSES))

    async def _good(self) -> int:
        return await self._turn()

    async def _odd(self) -> int:
        return await self._turn(n=2)

    async def _late(self) -> int:
        return await self._turn(headers={"Keyturn-Timestamp": "1000000000000"})

    async def _replay(self) -> int:
        return await self._turn(headers={"Authorization": f"Bearer {self._spent}"})

    async def _stranger(self) -> int:
        return await self._turn(headers={"Origin": "https://elsewhere.example"})

    async def _other_browser(self) -> int:
        return await self._turn(headers={"Keyturn-Fingerprint": "another-browser-altogether"})

    async def _own_key(self) -> int:
        return await self._turn(headers={"Authorization": "Bearer sk-a-visitors-own-made-up-key"})

    async def _crowd(self) -> int:
        """Ask so often that most are refused."""
        for _ in range(80):
            await self._turn(n=2)
        return 0

    async def _turn(self, headers: dict[str, str] | None = None, **more: Any) -> int:
        """One turn, read to its end."""
        said = [{"role": "user", "content": self._dice.choice(SAYINGS)}]
        sent = {
            "Content-Type": "application/json",
            "X-Forwarded-For": self._address,
            "Keyturn-Timestamp": str(time.time_ns() // 1_000_000),
            "Keyturn-Fingerprint": self._fingerprint,
            **({"Authorization": f"Bearer {self._token}"} if self._token else {}),
            **(headers or {}),
        }
        body = json.dumps({"messages": said, "stream": True, **more}).encode()
        async with self._session.post(self._url + CHAT, data=body, headers=sent) as answer:
            await answer.read()
        self._keep(answer)
        return answer.status

    def _keep(self, answer: aiohttp.ClientResponse) -> None:
        if token := answer.headers.get("Keyturn-Token"):
            self._spent, self._token = self._token, token
        elif answer.status == 401:
            self._token = None


@contextmanager
def server(port: int, token: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Keyturn as its operator runs it, with an admin token, in an empty directory; then stopped."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
    with tempfile.TemporaryDirectory(prefix="kt-") as folder, child_upstream() as own_keys:
        said = {"PORT": str(port), "ADMIN_TOKEN": token, "BYOK_BASE_URL": own_keys, **SETTINGS}
        process = subprocess.Popen(
            [sys.executable, str(SERVER)],
            cwd=folder,
            env={**kept, **said},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(START_LIMIT)


def is_free(port: int) -> bool:
    """Whether nobody listens there: else our visitors would chat with another server, for money."""
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


async def answers(
    session: aiohttp.ClientSession, url: str, token: str, process: "subprocess.Popen[bytes]"
) -> bool:
    """Wait until the server answers, and to our token; whether it does."""
    end = time.monotonic() + START_LIMIT
    shown = {"Authorization": f"Bearer {token}"}
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(aiohttp.ClientError):
            async with session.get(url + "/admin/api/state", headers=shown) as answer:
                if answer.status == 200:
                    return True
        await asyncio.sleep(0.1)
    return False


async def play(
    url: str, token: str, guests: int, minutes: float, process: "subprocess.Popen[bytes]"
) -> int:
    """Say where to look, and have visitors chat; 0, or 1 where there is no server."""
    limit = aiohttp.ClientTimeout(total=120)
    async with aiohttp.ClientSession(timeout=limit) as session:
        if not await answers(session, url, token, process):
            print("The server did not start.", file=sys.stderr)
            return 1
        print(f"  open      {url}/admin\n  token     {token}", flush=True)
        print(f"  traffic   {guests} visitors for {minutes:g} minutes; Ctrl-C ends it", flush=True)
        crowd = [Guest(session, url, number) for number in range(guests)]
        until = time.monotonic() + minutes * 60
        most = max(1, int(MOST_AN_HOUR * minutes / 60 / guests))
        await asyncio.gather(*(guest.chat(until, most) for guest in crowd))
        print(f"  over      {sum(guest.turns for guest in crowd)} turns and attempts", flush=True)
    return 0


def main(arguments: list[str]) -> int:
    """Run it; 0 when it ran to its end or was told to stop, 1 when it could not start."""
    parser = argparse.ArgumentParser(prog="admin-demo", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="how long, 10 by default")
    parser.add_argument("--visitors", type=int, default=8, help="how many, 1 to 50, 8 by default")
    parser.add_argument("--port", type=int, default=8000)
    asked = parser.parse_args(arguments)
    if not (0 < asked.minutes <= 24 * 60 and 1 <= asked.visitors <= 50):
        parser.error("minutes are up to 1440, visitors 1 to 50")
    if not is_free(asked.port):
        print(f'Port {asked.port} is in use: make admin-demo ARGS="--port 8010"', file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # else its server would outlive it
    token, url = secrets.token_urlsafe(32), f"http://127.0.0.1:{asked.port}"
    try:
        with server(asked.port, token) as process:
            return asyncio.run(play(url, token, asked.visitors, asked.minutes, process))
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
