"""Pages of another origin than Keyturn's: the files of a folder, on a port of their own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from tests.in_loop import serving_app

# A busy machine is no fault of the store: a turn that it makes wait would be sent twice.
PATIENT: Final = {
    "redis_timeout_ms": 5000,
    "redis_connect_timeout_ms": 5000,
    "redis_deadline_ms": 15_000,
}


@asynccontextmanager
async def other_origin(folder: Path) -> AsyncIterator[str]:
    """Serve this folder; yields the origin of its pages."""
    files = Mount("/", StaticFiles(directory=folder, html=True))
    async with serving_app(Starlette(routes=[files])) as origin:
        yield origin
