"""The command line: `python server.py` serves, `python server.py check` says what is wrong."""

import argparse
import asyncio
import logging
import signal
import sys
from typing import Final

import uvicorn

from embedded import EmbeddedError, Parts
from house import embedded_for, hand_over, open_house
from pages import is_ready, readiness
from protocol import KeyturnProtocol
from settings import Settings, SettingsError, read_settings

_LAST_RESORT: Final = 5


def main(arguments: list[str]) -> int:
    """Run a subcommand; 0 when all is well, 1 when not, 2 on wrong usage."""
    parser = argparse.ArgumentParser(prog="server.py", description="A secure AI chat API.")
    parser.add_argument("command", nargs="?", choices=["serve", "check"], default="serve")
    command = parser.parse_args(arguments).command
    try:
        settings = read_settings()
        return check(settings) if command == "check" else serve(settings)
    except SettingsError as error:
        print("Keyturn cannot start:", *error.reasons, sep="\n  - ", file=sys.stderr)
    except EmbeddedError as error:
        print(f"Keyturn cannot start: {error}", file=sys.stderr)
    return 1


def serve(settings: Settings) -> int:
    """Serve until told to stop; embedded parts are started once, here, for all workers."""
    configure_logs(settings.log_level)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)  # uvicorn raises it again when it is done
    with embedded_for(settings) as parts:
        hand_over(parts)
        print(banner(settings, parts), flush=True)
        uvicorn.run(
            "server:app",
            host=settings.host,
            port=settings.port,
            workers=settings.workers,
            http=KeyturnProtocol,
            ws="none",
            proxy_headers=False,
            server_header=False,
            access_log=False,
            log_config=None,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=settings.drain_seconds + _LAST_RESORT,
        )
    return 0


def banner(settings: Settings, parts: Parts) -> str:
    """What runs, what is embedded, and where to look, in a few lines."""
    upstream = "demo: answers are made up (set OPENAI_API_KEY)"
    if not parts.upstream_url:
        upstream = settings.openai_base_url
    secret = "one for this run only (set API_SECRET_KEY)" if parts.secret else "set"
    lines = [
        f"Keyturn ({'production' if settings.production else 'development'})",
        f"  open      http://{settings.host}:{settings.port}/",
        f"  upstream  {upstream}",
        f"  redis     {parts.store_name or 'REDIS_URL'}",
        f"  secret    {secret}",
        f"  workers   {settings.workers}",
    ]
    return "\n".join(lines)


def configure_logs(level: str) -> None:
    """One plain line per event, on stderr."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("keyturn").setLevel(level.upper())
    logging.getLogger("uvicorn").setLevel(max(logging.WARNING, logging.getLevelName(level.upper())))


def check(settings: Settings) -> int:
    """Say of every part whether it is fit to serve, one line each."""

    async def look() -> dict[str, str]:
        with embedded_for(settings) as parts:
            async with open_house(settings, parts) as keyturn:
                return await readiness(keyturn)

    found = asyncio.run(look())
    for part, state in found.items():
        print(f"{part:10} {state}")
    return 0 if is_ready(found) else 1
