"""Settings: their defaults, and that every mistake is told at once, without a secret in it."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from completions.prices import Price
from security.client_ip import Proxies
from security.ledger import Rate
from settings import OPENAI_URL, Settings, SettingsError, read_settings, start_burst
from tests.stage import ROOT

# pydantic-settings reads the environment whatever file it is given; under a prefix that nobody
# uses it finds nothing there, and the tests mean the same on every machine.
NOWHERE = "KEYTURN_TESTS_ALONE_"
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
    "openai_api_key": None,
    "openai_base_url": OPENAI_URL,
    "api_secret_key": (),
    "identity_key": None,
    "redis_url": None,
    "redis_timeout_ms": 250,
    "redis_connect_timeout_ms": 1000,
    "redis_deadline_ms": 600,
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
    "prices_file": ROOT / "prices.toml",
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
    "log_level": "info",
}


def chosen(**said: Any) -> Settings:
    """Settings of which only these were chosen, whatever the environment says."""
    return Settings(_env_file=None, _env_prefix=NOWHERE, **said)


def mistakes(**said: Any) -> list[str]:
    """What start-up says about these, written into a file as an operator would."""
    return told(said, {})


def told(said: dict[str, Any], environment: dict[str, str]) -> list[str]:
    """What a process of its own says that reads them from a file, and this environment."""
    raise NotImplementedError


def wrong(**said: Any) -> str:
    """The message with which a setting is refused."""
    with pytest.raises(ValidationError) as refused:
        chosen(**said)
    return str(refused.value)
