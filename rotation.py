"""New keys without a restart: when this process is told by SIGHUP, and when a key file changes.

The law: a turn goes on with the keys that it began with, what cannot be used changes nothing, and
no visitor's limits begin anew. A new key of the tokens verifies at once and signs later, when every
worker has it: until then one of them might take a token of another for a forgery.
"""

import asyncio
import logging
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import FrameType
from typing import Final

from completions.operator_keys import OperatorKeys
from embedded import Parts
from security.keyed_hash import derive_key
from security.one_time_token import TokenSigner
from setting_keys import KEYS
from settings import Settings, SettingsError

log = logging.getLogger("keyturn")

_LOOKS: Final = 2.0  # seconds between two looks at the key files
_IDENTITY: Final = (
    "API_SECRET_KEY: without its oldest key visitors' limits and budgets would begin anew: "
    "set IDENTITY_KEY to that very key, then take it away here"
)


def token_keys(settings: Settings, parts: Parts) -> list[str]:
    """The keys of the tokens, oldest first; the embedded one where none is set."""
    secrets = settings.api_secret_key or ((parts.secret,) if parts.secret else ())
    return [secret.get_secret_value() for secret in secrets]


def identity_of(settings: Settings, keys: list[str]) -> bytes:
    """The key of all hashes: of IDENTITY_KEY, else of the oldest of the tokens' keys."""
    given = settings.identity_key
    return derive_key(given.get_secret_value() if given else keys[0])


class Rotation:
    """The keys of a running worker, and how they change."""

    def __init__(
        self,
        settings: Settings,
        parts: Parts,
        *,
        operator: OperatorKeys,
        signer: TokenSigner,
        reread: Callable[[], Settings],
    ) -> None:
        self._settings = settings
        self._parts = parts
        self._operator = operator
        self._signer = signer
        self._reread = reread
        self._keys = token_keys(settings, parts)
        self._signing = self._keys[-1]
        self._identity = identity_of(settings, self._keys)
        self._later: asyncio.TimerHandle | None = None
        named = [getattr(settings, f"{name}_file") for name in KEYS]
        self._files = [file for file in named if file]
        self._taken: list[tuple[int, ...] | None] = []  # the state of the files when last read

    def take_up(self) -> bool | None:
        """Read all settings again and use their keys; whether any is new, None if they are bad."""
        self._taken = _state_of(self._files)
        try:
            fresh = self._reread()
            reasons = self._objections(fresh)
        except SettingsError as error:
            reasons = error.reasons
        if reasons:
            log.error("the keys stay as they are: %s", "; ".join(reasons))
            return None
        if changed := _changed(self._settings, fresh):
            log.warning("these changed too and need a restart: %s", ", ".join(changed))
        return self._use(fresh)

    def told(self) -> None:
        """Take up new keys because the operator said so, and say what came of it."""
        if self.take_up() is False:
            log.info("no new keys: .env and key files were read, the environment stays as it was")

    async def watch(self, looks_every: float = _LOOKS) -> None:
        """Look at the key files for ever; one that changed is read when it rests."""
        seen = self._taken
        while self._files:
            await asyncio.sleep(looks_every)
            now = _state_of(self._files)
            if now == seen != self._taken:
                self.take_up()
            seen = now

    def close(self) -> None:
        """Change nothing any more."""
        if self._later:
            self._later.cancel()

    def _objections(self, fresh: Settings) -> list[str]:
        """Why keys that are good by themselves are not good here."""
        reasons = []
        for name, is_embedded in (
            ("openai_api_key", self._parts.upstream_url is not None),
            ("api_secret_key", self._parts.secret is not None),
        ):
            if bool(getattr(fresh, name)) == is_embedded:
                came = "was not set when this server was started" if is_embedded else "is gone"
                reasons.append(f"{name.upper()}: {came}, which needs a restart")
        keys = token_keys(fresh, self._parts)
        if not reasons and identity_of(fresh, keys) != self._identity:
            reasons.append(_IDENTITY)
        return reasons

    def _use(self, fresh: Settings) -> bool:
        keys = token_keys(fresh, self._parts)
        new_operators = fresh.openai_api_key != self._settings.openai_api_key
        if new_operators:
            self._operator.replace(fresh.openai_api_key)
            log.info("OPENAI_API_KEY: in use from now on: %s", _count(len(self._operator)))
        new_tokens = keys != self._keys
        if new_tokens:
            self._verify_by(keys, self._settings.new_key_signs_after)
        names = ("openai_api_key", "api_secret_key", "identity_key")
        self._settings = self._settings.model_copy(
            update={name: getattr(fresh, name) for name in names}
        )
        return new_operators or new_tokens

    def _verify_by(self, keys: list[str], seconds: int) -> None:
        """Verify by all these at once, and sign by the last when the others know it."""
        self.close()
        self._keys = keys
        if self._signing not in keys or self._signing == keys[-1] or not seconds:
            self._sign_by_last()
            return
        self._signer.use([*(key for key in keys if key != self._signing), self._signing])
        log.info(
            "API_SECRET_KEY: %s verify; the last will sign in %s s", _count(len(keys)), seconds
        )
        self._later = asyncio.get_running_loop().call_later(seconds, self._sign_by_last)

    def _sign_by_last(self) -> None:
        self._signing = self._keys[-1]
        self._signer.use(self._keys)
        log.info("API_SECRET_KEY: %s verify; the last signs", _count(len(self._keys)))


@asynccontextmanager
async def rotating(rotation: Rotation) -> AsyncIterator[None]:
    """A block in which new keys are taken up; also those that came while it was prepared."""
    with _on_hang_up(rotation.told):
        rotation.take_up()
        watch = asyncio.create_task(rotation.watch())
        try:
            yield
        finally:
            watch.cancel()
            rotation.close()


@contextmanager
def _on_hang_up(told: Callable[[], None]) -> Iterator[None]:
    """Call `told` in this loop at each SIGHUP, where the system has it and the thread gets it."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGHUP"):
        yield
        return
    loop, before = asyncio.get_running_loop(), signal.getsignal(signal.SIGHUP)

    def hang_up(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(told)
        if callable(before):
            before(number, frame)

    signal.signal(signal.SIGHUP, hang_up)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


def _state_of(files: list[Path]) -> list[tuple[int, ...] | None]:
    """What differs when a file is written or replaced, also by a link that turns elsewhere."""
    return [_stat(file) for file in files]


def _stat(file: Path) -> tuple[int, ...] | None:
    try:
        seen = file.stat()
    except OSError:
        return None
    return seen.st_mtime_ns, seen.st_ino, seen.st_size


def _changed(before: Settings, after: Settings) -> list[str]:
    """The settings that differ and are no keys."""
    others = sorted(set(Settings.model_fields) - set(KEYS))
    return [name.upper() for name in others if getattr(before, name) != getattr(after, name)]


def _count(number: int) -> str:
    return f"{number} key" + "s" * (number != 1)
