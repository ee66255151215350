"""How keys are written: several in a setting, or in files of their own."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from check_settings import about_settings
from completions.operator_keys import OperatorKeys
from embedded import Parts
from findings import Finding
from house import open_house
from rotation import Rotation
from security.errors import Rejection
from security.one_time_token import Claims, TokenSigner
from settings import Settings, SettingsError, read_settings
from tests.check_stage import check_live, upstream_of_models
from tests.settings_stage import chosen, refusal
from tests.stage import OPERATORS_KEY, SECRET, now_ms, settings_with, wait_until

NEWER = "another-long-and-random-secret-for-tests-3Fx8"
NOTHING = Parts(None, None, None, None)


def texts(settings: Settings, name: str) -> list[str]:
    """The keys of a setting, as text."""
    return [key.get_secret_value() for key in getattr(settings, name)]


def test_several_operators_keys_are_read_in_order() -> None:
    """Blanks around them are left out; one that is named twice is a mistake."""
    said = chosen(openai_api_key=" sk-a , sk-b,", api_secret_key=SECRET)
    assert texts(said, "openai_api_key") == ["sk-a", "sk-b"]
    assert refusal(openai_api_key="sk-a,sk-a") == "OPENAI_API_KEY: names the same key twice"
    assert "OPENAI_API_KEY: should be printable" in refusal(openai_api_key="sk-a,sk b")


@pytest.mark.parametrize("text", ["{0}\n{1}\n", "{0},{1}", "\n {0} \r\n\r\n{1}", "{0}\n,{1},\n"])
def test_keys_stand_in_files_as_secrets_are_mounted(tmp_path: Path, text: str) -> None:
    """On lines or apart by commas, with a line end or without."""
    operators, tokens, identity = (tmp_path / name for name in ("a", "b", "c"))
    operators.write_text(text.format("sk-a", "sk-b"))
    tokens.write_text(text.format(SECRET, NEWER))
    identity.write_text(f"{NEWER}\n")
    said = chosen(
        openai_api_key_file=str(operators),
        api_secret_key_file=str(tokens),
        identity_key_file=str(identity),
    )
    assert texts(said, "openai_api_key") == ["sk-a", "sk-b"]
    assert texts(said, "api_secret_key") == [SECRET, NEWER]
    assert said.identity_key
    assert said.identity_key.get_secret_value() == NEWER


def test_what_is_wrong_with_key_files_is_said_at_once(tmp_path: Path) -> None:
    """By the setting's name, with every other mistake, and without a word of what is in them."""
    empty, weak = tmp_path / "empty", tmp_path / "weak"
    empty.write_text("\n")
    weak.write_text("canary\n")
    said = refusal(
        openai_api_key_file=str(empty),
        api_secret_key_file=str(weak),
        identity_key_file=str(tmp_path / "missing"),
        default_model=5,
    )
    assert "OPENAI_API_KEY: is missing in the file that OPENAI_API_KEY_FILE names" in said
    assert "API_SECRET_KEY: has a key shorter than 32 bytes" in said
    assert "IDENTITY_KEY: stands in no readable text file" in said
    assert "DEFAULT_MODEL: " in said
    assert "canary" not in said
    both = refusal(api_secret_key=SECRET, api_secret_key_file=str(weak))
    assert both == "API_SECRET_KEY: is set, and API_SECRET_KEY_FILE too; set one of the two"


def test_key_files_are_read_from_an_environment_file(tmp_path: Path) -> None:
    """The whole way, as an operator writes it; mistakes of the rest are told too."""
    (tmp_path / "key").write_text("sk-a")
    env = tmp_path / ".env"
    env.write_text(f"OPENAI_API_KEY_FILE={tmp_path}/key\nAPI_SECRET_KEY={SECRET}\n")
    assert texts(read_settings(env), "openai_api_key") == ["sk-a"]
    env.write_text(f"API_SECRET_KEY_FILE={tmp_path}/missing\nDEFAULT_MODEL=none-such\n")
    with pytest.raises(SettingsError) as refused:
        read_settings(env)
    assert [reason.partition(":")[0] for reason in refused.value.reasons] == [
        "API_SECRET_KEY",
        "DEFAULT_MODEL",
    ]


async def test_check_says_how_many_keys_there_are(tmp_path: Path, redis_url: str) -> None:
    """And by `--live` which of the operator's is refused, by its place; each is asked."""
    several = settings_with(openai_api_key="sk-a,sk-b", api_secret_key=f"{SECRET},{NEWER}")
    found = [each for each in about_settings(several) if each.group == "keys"]
    assert [each.state for each in found] == ["ok", "ok", "warning"]
    assert "set IDENTITY_KEY to that very key before" in found[-1].text
    named = settings_with(api_secret_key=f"{SECRET},{NEWER}", identity_key=SECRET)
    assert Finding("keys", "ok", "API_SECRET_KEY: 2 verify, the last signs") in about_settings(
        named
    )
    asked: list[Any] = []
    async with upstream_of_models(asked) as url:
        live = await check_live(
            tmp_path, url, "honest", REDIS_URL=redis_url, OPENAI_API_KEY="sk-a,sk-b,sk-c"
        )
    assert live.code == 0, live.said
    first, second, third = live.of("live", "ok")
    assert first.startswith("honest: answered in")
    assert second.startswith("key 2 of 3, honest: answered in")
    assert third.startswith("key 3 of 3, honest: answered in")
    assert len(asked) == 3


class Worker:
    """The keys of a worker and what it would read if it were told to."""

    def __init__(self, settings: Settings, parts: Parts = NOTHING) -> None:
        self.next = settings
        self.reads = 0
        self.while_read: Callable[[], object] = lambda: None
        self.operator = OperatorKeys(settings.openai_api_key, clock=lambda: 0.0)
        keys = [key.get_secret_value() for key in settings.api_secret_key] or [SECRET]
        self.signer = TokenSigner(keys, tenant="main")
        self.rotation = Rotation(
            settings,
            parts,
            operator=self.operator,
            signer=self.signer,
            reread=self._reread,
        )

    def _reread(self) -> Settings:
        self.reads += 1
        self.while_read()
        return self.next

    def told(self, **said: Any) -> bool | None:
        """Whether it takes these up."""
        self.next = settings_with(**said)
        return self.rotation.take_up()


def token(signer: TokenSigner) -> str:
    """A token of this moment."""
    now = now_ms()
    return signer.sign(Claims("c", 1, now, now, now + 60_000, "f"))


def is_taken(signer: TokenSigner, shown: str) -> bool:
    """Whether it verifies."""
    try:
        signer.unsign(shown, now_ms=now_ms())
    except Rejection:
        return False
    return True


async def test_a_file_that_changes_while_it_is_read_is_read_again(tmp_path: Path) -> None:
    """Else its last key would wait for the next change; once it rests, it is read no more."""
    file = tmp_path / "keys"
    file.write_text(SECRET)
    worker = Worker(chosen(openai_api_key="sk-a", api_secret_key_file=str(file)))
    worker.while_read = lambda: file.write_text(f"{SECRET},{NEWER}")
    worker.rotation.take_up()
    worker.while_read = lambda: None
    watch = asyncio.create_task(worker.rotation.watch(looks_every=0.001))
    await asyncio.to_thread(wait_until, lambda: worker.reads == 2)
    await asyncio.sleep(0.1)  # for what must not happen
    watch.cancel()
    assert worker.reads == 2


async def test_who_is_known_stays_known() -> None:
    """The oldest key goes only when IDENTITY_KEY has become it; then in one step, and at once."""
    worker = Worker(settings_with(api_secret_key=f"{SECRET},{NEWER}"))
    assert worker.told(api_secret_key=NEWER) is None
    assert worker.told(api_secret_key=NEWER, identity_key=NEWER) is None
    assert worker.told(api_secret_key=f"{NEWER},{SECRET}") is None
    old = token(TokenSigner([SECRET], tenant="main"))
    assert is_taken(worker.signer, old)
    assert worker.told(api_secret_key=NEWER, identity_key=SECRET)
    assert not is_taken(worker.signer, old)


async def test_the_name_of_a_visitor_outlives_the_oldest_key(redis_url: str) -> None:
    """After a restart too: IDENTITY_KEY that is what the oldest key was hashes alike."""
    names = []
    for said in (
        {"api_secret_key": f"{SECRET},{NEWER}"},
        {"api_secret_key": NEWER, "identity_key": SECRET},
        {"api_secret_key": NEWER},
    ):
        async with open_house(settings_with(redis_url=redis_url, **said)) as keyturn:
            names.append(keyturn.hash("addr", b"203.0.113.7/32"))
    assert names[0] == names[1]
    assert names[2] != names[0], "the control: without it every budget begins anew"


async def test_a_new_key_verifies_at_once_and_signs_later() -> None:
    """And the other way round: while it waits, tokens of the old one are made."""
    worker = Worker(settings_with(api_secret_key=SECRET, new_key_signs_after=60))
    newer = TokenSigner([NEWER], tenant="main")
    assert worker.told(api_secret_key=f"{SECRET},{NEWER}")
    assert is_taken(worker.signer, token(newer))
    assert is_taken(TokenSigner([SECRET], tenant="main"), token(worker.signer))
    assert worker.told(api_secret_key=f"{SECRET},{NEWER}") is False, "nothing new"
    worker.rotation.close()


@pytest.mark.parametrize(
    ("parts", "said", "reason"),
    [
        (Parts(None, "http://demo/v1", None, None), {}, "OPENAI_API_KEY: was not set when"),
        (NOTHING, {"openai_api_key": None}, "OPENAI_API_KEY: is gone, which needs a restart"),
    ],
)
async def test_what_only_a_restart_can_change(
    caplog: pytest.LogCaptureFixture, parts: Parts, said: dict[str, Any], reason: str
) -> None:
    """From the demo to a key and back: nothing is changed, and the reason is logged."""
    worker = Worker(settings_with(), parts)
    assert worker.told(**said) is None
    assert reason in caplog.text
    assert [key.secret.get_secret_value() for key in worker.operator] == [OPERATORS_KEY]
