"""The store that the operator's commands look at, beside a server that runs or without one.

In this order: REDIS_URL, the store of the server that runs in this directory, and one opened for
the moment from the files that it keeps.
"""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

from pydantic import SecretStr

from embedded import Parts, embedded_parts, store_in_use
from provisions import HOME
from security.spending import OutOfSight
from security.store import MEMORY
from settings import Settings

BESIDE: Final = "the store of the server that runs here"
_NO_SERVER: Final = "no server runs here, and without OPENAI_API_KEY none keeps its books"
_IN_MEMORY: Final = (
    "the server that runs here keeps its books in its own memory (fakeredis), "
    "where nobody else can look"
)


@contextmanager
def store_at_hand(settings: Settings, *, only_books: bool = False) -> Iterator[Parts]:
    """What a server of these settings would be given, without a demo upstream.

    Raises `OutOfSight` where the store is in another process' memory, or, if asked for
    `only_books`, where it would be a new and empty one. Raises `EmbeddedError` as a server would.
    """
    ours = None if settings.api_secret_key else SecretStr(secrets.token_urlsafe(48))
    persistent = bool(settings.openai_api_key)
    url = None if settings.redis_url else store_in_use(HOME)
    if url == MEMORY:
        raise OutOfSight(_IN_MEMORY)
    if settings.redis_url or url:
        yield Parts(url, None, ours, BESIDE if url else None)
        return
    if only_books and not persistent:
        raise OutOfSight(_NO_SERVER)
    with embedded_parts(
        HOME, store=True, upstream=False, secret=False, persistent=persistent
    ) as parts:
        yield replace(parts, secret=ours)
