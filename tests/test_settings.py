"""Settings: their defaults, and that every mistake is told at once, without a secret in it."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from security.client_ip import Proxies
from security.scripts import Rate
from settings import OPENAI_URL, Settings
from tests.settings_stage import NOWHERE, chosen, refusal
from tests.stage import ROOT

SECRET = "a-long-and-random-secret-for-tests-only-7Qz9"
OTHER_SECRET = "Wm4-another_secret-for-tests-0xK81vB2cD3eF5gH"
PRODUCTION = {
    "keyturn_env": "production",
    "redis_url": "redis://redis:6379/0",
    "openai_api_key": "sk-operator",
    "api_secret_key": SECRET,
    "allowed_origins": "https://chat.example.org",
}
MODELS = ("gpt-4.1-mini", "gpt-4o-mini", "gpt-3.5-turbo")
DEFAULTS: dict[str, Any] = {
    "openai_api_key": (),
    "openai_api_key_file": None,
    "openai_base_url": OPENAI_URL,
    "api_secret_key": (),
    "api_secret_key_file": None,
    "identity_key": None,
    "identity_key_file": None,
    "new_key_signs_after": 120,
    "redis_url": None,
    "redis_timeout_ms": 250,
    "redis_connect_timeout_ms": 1000,
    "redis_deadline_ms": 600,
    "failover_fence": True,
    "host": "127.0.0.1",
    "port": 8000,
    "workers": 1,
    "keyturn_env": "development",
    "vercel": False,
    "tenant": "main",
    "allowed_origins": (),
    "require_origin": False,
    "trusted_proxies": Proxies(),
    "client_ip_header": None,
    "timestamp_max_skew": 120,
    "token_ttl": 1800,
    "chain_ttl": 86400,
    "reuse_grace": 10,
    "recovery_window": 180,
    "rate_limit": Rate(30, 60_000_000 // 30),
    "start_limit": Rate(60, 3600_000_000 // 60),
    "start_limit_global": Rate(600, 60_000_000 // 600),
    "max_streams_per_chain": 2,
    "max_streams_per_ip": 8,
    "max_streams": 1000,
    "allowed_models": MODELS,
    "default_model": "gpt-4.1-mini",
    "system_prompt": None,
    "system_prompt_file": None,
    "max_output_tokens": 1024,
    "max_messages": 50,
    "max_message_chars": 10_000,
    "max_body_bytes": 262_144,
    "allow_tools": False,
    "safety_identifier": None,
    "daily_budget_usd": 5_000_000,
    "visitor_daily_budget_usd": 500_000,
    "prices_file": ROOT / "prices.toml",
    "abort_margin_tokens": 256,
    "byok": True,
    "byok_base_url": "https://api.openai.com/v1",
    "byok_models": MODELS,
    "byok_allowed_origins": ("*",),
    "byok_max_body_bytes": 4_194_304,
    "byok_reject_limit": Rate(10, 3600_000_000 // 10),
    "max_stream_seconds": 300,
    "drain_seconds": 30,
    "docs": None,
    "demo_page": True,
    "metrics_token": None,
    "admin_token": None,
    "log_level": "info",
}


PRINT = """
from settings import SettingsError, read_settings
try:
    settings = read_settings()
except SettingsError as error:
    print(*error.reasons, sep="\\n")
else:
    print(settings.port, settings.tenant, settings.production)
"""
MONEY = """
from settings import read_settings
settings = read_settings()
print(settings.caps.day, settings.caps.visitor, settings.abort_margin_tokens)
"""


def start(
    folder: Path, dotenv: str | bytes = "", code: str = PRINT, **environment: str
) -> list[str]:
    """The lines that a process of its own prints: nothing in its environment but this."""
    raw = dotenv.encode() if isinstance(dotenv, str) else dotenv
    (folder / ".env").write_bytes(raw)
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_the_defaults_are_the_promised_ones() -> None:
    """One row for every setting there is, no more and no less."""
    assert {name: getattr(chosen(), name) for name in Settings.model_fields} == DEFAULTS


def test_the_environment_of_the_machine_has_no_part_in_these_tests(tmp_path: Path) -> None:
    """With no file named, the library reads the environment all the same; not under our prefix."""
    ask = f"from settings import *; print(Settings(_env_file=None, _env_prefix={NOWHERE!r}).port)"
    naive = "from settings import *; print(Settings(_env_file=None).port)"
    printed = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONPATH": str(ROOT), "PORT": "4321"},
            cwd=tmp_path,
            capture_output=True,
            check=True,
            text=True,
        ).stdout.strip()
        for code in (ask, naive)
    ]
    assert printed == ["8000", "4321"]


def test_a_file_is_read_and_the_environment_goes_first(tmp_path: Path) -> None:
    """`.env` of the folder, in UTF-8; what stands in neither has its default; empty is unset."""
    dotenv = "# a remark\nPORT=1234\nexport TENANT='from-file'\nUNKNOWN=x\nKEYTURN_ENV=\n"
    assert start(tmp_path, dotenv) == ["1234 from-file False"]
    assert start(tmp_path, dotenv, PORT="4321", TENANT="") == ["4321 from-file False"]
    assert start(tmp_path) == ["8000 main False"]


def test_an_empty_cap_is_the_default_and_never_off(tmp_path: Path) -> None:
    """Whether it stands in the file or in the environment; off is a word."""
    empty = "DAILY_BUDGET_USD=\nVISITOR_DAILY_BUDGET_USD=\nABORT_MARGIN_TOKENS=\n"
    assert start(tmp_path, empty, MONEY) == ["5000000 500000 256"]
    assert start(tmp_path, "", MONEY, DAILY_BUDGET_USD="") == ["5000000 500000 256"]
    said = {"DAILY_BUDGET_USD": "Off", "VISITOR_DAILY_BUDGET_USD": "0"}
    assert start(tmp_path, empty, MONEY, **said) == ["None 0 256"]


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    """Instead of a traceback."""
    assert start(tmp_path, b"PORT=\xff\xfe") == [".env: should be a readable text file in UTF-8"]


def test_every_mistake_is_told_at_once(tmp_path: Path) -> None:
    """Those of single settings and those that do not go together, each by its name, once."""
    secret, weak = "sk-canary-1", "canary-2-canary-2"
    dotenv = f"""
        KEYTURN_ENV=production
        PORT=http
        RATE_LIMIT=30/fortnight
        ALLOWED_ORIGINS=*
        OPENAI_API_KEY={secret}
        API_SECRET_KEY={weak}
        REDIS_URL=http://:canary-3@redis
        IDENTITY_KEY=canary-4
        DEFAULT_MODEL=gpt-9
        SYSTEM_PROMPT_FILE=nowhere.txt
        DOCS=perhaps
    """
    said = start(tmp_path, dotenv)
    assert sorted(line.split(":")[0] for line in said) == [
        "ALLOWED_ORIGINS",
        "API_SECRET_KEY",
        "DEFAULT_MODEL",
        "DOCS",
        "IDENTITY_KEY",
        "PORT",
        "RATE_LIMIT",
        "REDIS_URL",
        "SYSTEM_PROMPT_FILE",
    ]
    assert "canary" not in " ".join(said)
    assert all(" should " in line or "make one with" in line for line in said)


def test_the_library_alone_would_tell_half_of_them() -> None:
    """The control: while one setting is wrong by itself, what goes together is not looked at."""
    assert "DEFAULT_MODEL" not in refusal(port="http", default_model="gpt-9")
    assert "DEFAULT_MODEL" in refusal(default_model="gpt-9")


@pytest.mark.parametrize("missing", sorted(PRODUCTION.keys() - {"keyturn_env"}))
def test_production_embeds_nothing(missing: str) -> None:
    """What is missing is named; and Vercel is production."""
    assert chosen(**PRODUCTION).production
    without = {name: value for name, value in PRODUCTION.items() if name != missing}
    assert f"{missing.upper()}: is required in production" in refusal(**without)
    without.pop("keyturn_env")
    assert f"{missing.upper()}: is required in production" in refusal(vercel="1", **without)
    assert not chosen().production


def test_everything_that_production_needs_is_told_at_once() -> None:
    """Four names."""
    assert len(refusal(vercel="1").splitlines()) == 4


def test_a_key_of_the_operators_needs_a_secret_of_his() -> None:
    """What signs for real money is not made up at start."""
    assert "API_SECRET_KEY: is required with OPENAI_API_KEY" in refusal(openai_api_key="sk-x")
    assert "OPENAI_API_KEY: is required" in refusal(openai_base_url="http://localhost:1234/v1")


WEAK = {
    "short": SECRET[:31],
    "one character repeated": "x" * 48,
    "two characters repeated": "xy" * 24,
    "a sample": "changethis-" + SECRET,
    "another sample": "0123456789abcdef" * 3,
    "one of two is short": f"{SECRET},{SECRET[:31]}",
    "one of two is a sample": f"your-secret-{SECRET},{SECRET}",
    "the same twice": f"{SECRET},{OTHER_SECRET},{SECRET}",
}


@pytest.mark.parametrize("keys", WEAK.values(), ids=WEAK)
def test_a_secret_that_can_be_guessed_is_refused_and_not_repeated(keys: str) -> None:
    """The message names the setting and never the value; it says how to make a good one."""
    said = refusal(api_secret_key=keys)
    assert said.startswith("API_SECRET_KEY: ")
    assert not any(part in said for part in keys.split(","))
    with pytest.raises(ValidationError) as refused:
        chosen(api_secret_key=keys)
    assert SECRET[:31] not in f"{refused.value} {refused.value!r}"


def test_an_empty_secret_is_none() -> None:
    """And none is not enough where one is required."""
    for empty in ("", ",", " , ,"):
        assert chosen(api_secret_key=empty).api_secret_key == ()
        assert "API_SECRET_KEY: " in refusal(api_secret_key=empty, openai_api_key="sk-x")


def test_keys_are_read_in_order() -> None:
    """Oldest first, blanks around them left out."""
    keys = chosen(api_secret_key=f" {SECRET} , {OTHER_SECRET} ").api_secret_key
    assert [key.get_secret_value() for key in keys] == [SECRET, OTHER_SECRET]


def test_the_identity_key_is_held_to_the_same() -> None:
    """It is as secret as the others; so is the token that opens the metrics."""
    for weak in ("short", "x" * 48, "changeme" * 6):
        assert refusal(identity_key=weak).startswith("IDENTITY_KEY: ")
        assert refusal(metrics_token=weak).startswith("METRICS_TOKEN: ")
    assert chosen(identity_key=OTHER_SECRET, metrics_token=SECRET).metrics_token


def test_who_reads_metrics_cannot_sign_tokens() -> None:
    """Its token is no other secret of ours."""
    for other in ({"api_secret_key": f"{OTHER_SECRET},{SECRET}"}, {"identity_key": SECRET}):
        said = refusal(metrics_token=SECRET, **other)
        assert said.startswith("METRICS_TOKEN: should be a secret of its own")


def test_who_reads_metrics_is_not_the_operator() -> None:
    """The operator's token is no other secret of ours either, and both may be set."""
    for other in (
        {"api_secret_key": f"{OTHER_SECRET},{SECRET}"},
        {"identity_key": SECRET},
        {"metrics_token": SECRET},
    ):
        said = refusal(admin_token=SECRET, **other)
        assert said.startswith("ADMIN_TOKEN: should be a secret of its own")
    assert chosen(admin_token=SECRET, metrics_token=OTHER_SECRET).admin_token


@pytest.mark.parametrize("key", [" ", "sk-x\n", "sk x", "sk-\u00e9", "\x00"])
def test_a_key_that_no_header_can_carry_is_refused(key: str) -> None:
    """At start, and not with every visitor's turn; a blank one is no key for production."""
    said = refusal(openai_api_key=key, api_secret_key=SECRET)
    assert said == "OPENAI_API_KEY: should be printable ASCII without blanks"


def test_no_secret_is_printed() -> None:
    """Neither by `repr` nor by `str`, nor in a dump of all settings."""
    secrets = {
        "openai_api_key": "sk-canary-1",
        "api_secret_key": f"{SECRET}-canary-2,{OTHER_SECRET}-canary-3",
        "identity_key": f"{SECRET}-canary-4",
        "metrics_token": f"{SECRET}-canary-6",
        "redis_url": "redis://:canary-5@localhost",
    }
    settings = chosen(**secrets)
    assert "canary" not in f"{settings!r} {settings} {settings.model_dump()}"
    assert "canary" not in settings.model_dump_json(exclude={"trusted_proxies"})


def test_settings_are_frozen() -> None:
    """What was checked at start stays as it was checked."""
    settings = chosen()
    for name in Settings.model_fields:
        with pytest.raises(ValidationError, match="frozen"):
            setattr(settings, name, getattr(settings, name))
