"""Pages of another origin than Keyturn's: the files of a folder, on a port of their own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from tests.in_loop import serving_app


@asynccontextmanager
async def other_origin(folder: Path) -> AsyncIterator[str]:
    """Serve this folder; yields the origin of its pages."""
    files = Mount("/", StaticFiles(directory=folder, html=True))
    async with serving_app(Starlette(routes=[files])) as origin:
        yield origin
