"""Every knob, read once from the environment or `.env`; nothing is read at import.

All mistakes are reported at once, each with the setting's name and what would be right.
"""

import re
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from completions.prices import Price, read_prices
from completions.text import unsafe_character
from security.budget import Caps
from security.client_ip import Proxies
from security.scripts import Rate
from security.store_url import read_store_url
from security.tls import require_files
from setting_keys import Key, Keys, require_strong, with_key_files
from setting_types import (
    HOW_TO_MAKE_ONE,
    YEAR,
    AnyOrigins,
    Count,
    MicroUsd,
    Origins,
    RateLimit,
    Seconds,
    SecondsOfADay,
    Switch,
    TrustedProxies,
    Url,
    Words,
)

OPENAI_URL: Final = "https://api.openai.com/v1"
_SENDABLE: Final = "should be printable ASCII without blanks"
MODELS: Final = ("gpt-4.1-mini", "gpt-4o-mini", "gpt-3.5-turbo")


class SettingsError(Exception):
    """The settings cannot be used; `reasons` names each one and what would be right."""

    def __init__(self, reasons: list[str]) -> None:
        super().__init__("; ".join(reasons))
        self.reasons = reasons


class Settings(BaseSettings):
    """What the operator chose; frozen."""

    model_config = SettingsConfigDict(
        env_file=".env",
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
        env_ignore_empty=True,
        validate_default=True,
        arbitrary_types_allowed=True,
    )

    openai_api_key: Keys = ()
    openai_api_key_file: Path | None = None
    openai_base_url: Url = OPENAI_URL
    api_secret_key: Keys = ()
    api_secret_key_file: Path | None = None
    identity_key: Key = None
    identity_key_file: Path | None = None
    new_key_signs_after: Annotated[int, Field(ge=0, le=YEAR)] = 120

    redis_url: SecretStr | None = None
    redis_timeout_ms: Annotated[int, Field(ge=1)] = 250
    redis_connect_timeout_ms: Annotated[int, Field(ge=1)] = 1000
    redis_deadline_ms: Annotated[int, Field(ge=1)] = 600
    failover_fence: Switch = True

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    workers: Count = 1
    keyturn_env: Literal["development", "production"] = "development"
    vercel: bool = False
    tenant: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")] = "main"

    allowed_origins: Origins = ()
    require_origin: Switch = False
    trusted_proxies: TrustedProxies = Proxies.parse("")
    client_ip_header: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,64}$")] | None = None

    timestamp_max_skew: Seconds = 120
    token_ttl: Seconds = 1800
    chain_ttl: Seconds = 86400
    reuse_grace: Annotated[int, Field(ge=0, le=YEAR)] = 10
    recovery_window: Seconds = 180
    rate_limit: RateLimit = Rate(burst=30, interval_us=2_000_000)
    start_limit: RateLimit = Rate(burst=60, interval_us=60_000_000)
    start_limit_global: RateLimit = Rate(burst=600, interval_us=100_000)
    max_streams_per_chain: Count = 2
    max_streams_per_ip: Count = 8
    max_streams: Count = 1000

    allowed_models: Words = MODELS
    default_model: str = "gpt-4.1-mini"
    system_prompt: str | None = None
    system_prompt_file: Path | None = None
    max_output_tokens: Count = 1024
    max_messages: Count = 50
    max_message_chars: Count = 10_000
    max_body_bytes: Count = 262_144
    allow_tools: Switch = False
    safety_identifier: Switch | None = None

    daily_budget_usd: MicroUsd = 5_000_000
    visitor_daily_budget_usd: MicroUsd = 500_000
    prices_file: Path = Path(__file__).parent / "prices.toml"
    abort_margin_tokens: Annotated[int, Field(ge=0)] = 256

    byok: Switch = True
    byok_base_url: Url = OPENAI_URL
    byok_models: Words = MODELS
    byok_allowed_origins: AnyOrigins = ("*",)
    byok_max_body_bytes: Count = 4_194_304
    byok_reject_limit: RateLimit = Rate(burst=10, interval_us=360_000_000)

    max_stream_seconds: SecondsOfADay = 300
    drain_seconds: Seconds = 30

    docs: Switch | None = None
    demo_page: Switch = True
    admin_token: SecretStr | None = None
    metrics_token: SecretStr | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @property
    def production(self) -> bool:
        """Whether nothing may be embedded: KEYTURN_ENV=production, or Vercel."""
        return self.keyturn_env == "production" or self.vercel

    @property
    def docs_shown(self) -> bool:
        """DOCS where it was set; else on in development and off in production."""
        return (not self.production) if self.docs is None else self.docs

    @property
    def origins(self) -> frozenset[str]:
        """The origins whose pages may chat."""
        port = "" if self.port == 80 else f":{self.port}"  # browsers leave out the usual one
        own = (f"http://localhost{port}", f"http://127.0.0.1{port}")
        return frozenset(self.allowed_origins or own)

    @property
    def caps(self) -> Caps:
        """The most that a day may cost."""
        return Caps(day=self.daily_budget_usd, visitor=self.visitor_daily_budget_usd)

    @property
    def prices(self) -> dict[str, Price]:
        """The price of every allowed model."""
        return read_prices(self.prices_file.read_bytes())

    @property
    def locked_prompt(self) -> str | None:
        """The operator's system prompt, from the setting or its file."""
        if self.system_prompt_file:
            return self.system_prompt_file.read_text(encoding="utf-8")
        return self.system_prompt

    @model_validator(mode="before")
    @classmethod
    def _key_files(cls, said: Any) -> Any:
        return with_key_files(said)

    @field_validator("api_secret_key")
    @classmethod
    def _strong(cls, keys: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        for key in keys:
            require_strong(key)
        return keys

    @field_validator("openai_api_key", mode="before")
    @classmethod
    def _not_blank(cls, value: Any) -> Any:
        if isinstance(value, str) and (value.isspace() or not value.isprintable()):
            raise ValueError(_SENDABLE)
        return value

    @field_validator("openai_api_key")
    @classmethod
    def _sendable(cls, keys: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        if not all(re.fullmatch(r"[\x21-\x7e]+", key.get_secret_value()) for key in keys):
            raise ValueError(_SENDABLE)
        return keys

    @field_validator("identity_key", "metrics_token", "admin_token")
    @classmethod
    def _strong_alone(cls, key: SecretStr | None) -> SecretStr | None:
        if key:
            require_strong(key)
        return key

    @field_validator("redis_url")
    @classmethod
    def _store(cls, url: SecretStr | None) -> SecretStr | None:
        if url:
            require_files(read_store_url(url.get_secret_value()).options)
        return url

    @model_validator(mode="after")
    def _together(self) -> Self:
        reasons = self._money_mistakes() + self._prompt_mistakes() + self._upstream_mistakes()
        if self.production:
            reasons += self.missing_in_production()
        if reasons:
            raise ValueError("\n".join(reasons))
        return self

    def _money_mistakes(self) -> list[str]:
        try:
            priced = self.prices
        except OSError:
            return ["PRICES_FILE: should be a readable file"]
        except ValueError as mistake:
            return [f"PRICES_FILE: should be a price list; {mistake}"]
        mistakes = [
            f"ALLOWED_MODELS: {model} has no price in PRICES_FILE"
            for model in self.allowed_models
            if model not in priced
        ]
        if self.default_model not in self.allowed_models:
            mistakes.append("DEFAULT_MODEL: should be one of ALLOWED_MODELS")
        return mistakes

    def _prompt_mistakes(self) -> list[str]:
        if self.system_prompt and self.system_prompt_file:
            return ["SYSTEM_PROMPT: set it or SYSTEM_PROMPT_FILE, not both"]
        try:
            prompt = self.locked_prompt
        except (OSError, ValueError):
            return ["SYSTEM_PROMPT_FILE: should be a readable file in UTF-8"]
        if prompt is not None and (not prompt.strip() or unsafe_character(prompt)):
            name = "SYSTEM_PROMPT_FILE" if self.system_prompt_file else "SYSTEM_PROMPT"
            return [f"{name}: should be text: not blank, no control characters"]
        return []

    def _upstream_mistakes(self) -> list[str]:
        mistakes = []
        others = [*self.api_secret_key, self.identity_key]
        for name in ("metrics_token", "admin_token"):
            token = getattr(self, name)
            if token and token in others:
                mistakes.append(f"{name.upper()}: should be a secret of its own; {HOW_TO_MAKE_ONE}")
            others.append(token)
        if not self.byok_models:
            mistakes.append("BYOK_MODELS: should name a model; BYOK=off turns own keys off")
        if self.openai_api_key and not self.api_secret_key:
            mistakes.append("API_SECRET_KEY: is required with OPENAI_API_KEY; " + HOW_TO_MAKE_ONE)
        if self.openai_base_url != OPENAI_URL and not self.openai_api_key:
            mistakes.append(
                "OPENAI_API_KEY: is required with OPENAI_BASE_URL; "
                "any word will do for a server that asks for none"
            )
        return mistakes

    def missing_in_production(self) -> list[str]:
        """What production needs and is not set, each with that reason."""
        required = {
            "REDIS_URL": self.redis_url,
            "OPENAI_API_KEY": self.openai_api_key,
            "API_SECRET_KEY": self.api_secret_key,
            "ALLOWED_ORIGINS": self.allowed_origins,
        }
        return [
            f"{name}: is required in production, where nothing is embedded"
            for name, value in required.items()
            if not value
        ]


def read_settings(env_file: Path | None = Path(".env")) -> Settings:
    """The settings of this process; raises `SettingsError` with every mistake."""
    try:
        return Settings(_env_file=env_file)
    except ValidationError as invalid:
        raise SettingsError(_reasons(invalid, env_file)) from None
    except (OSError, UnicodeDecodeError):
        raise SettingsError([f"{env_file}: should be a readable text file in UTF-8"]) from None


def _reasons(invalid: ValidationError, env_file: Path | None) -> list[str]:
    """Every mistake: those of single settings, then of the whole as if these were mended."""
    reasons = [reason for error in invalid.errors() for reason in _say(error)]
    broken = {str(error["loc"][0]) for error in invalid.errors() if error["loc"]}
    if not broken:
        return reasons
    mended = {name: Settings.model_fields[name].default for name in broken}
    try:
        Settings(_env_file=env_file, **mended)
    except ValidationError as still_invalid:
        of_all = [reason for error in still_invalid.errors() for reason in _say(error)]
        reasons += [each for each in of_all if each.partition(":")[0].lower() not in broken]
    return reasons


def _say(error: Any) -> list[str]:
    message = error["msg"].removeprefix("Value error, ")
    if not error["loc"]:
        return list(message.split("\n"))
    return [f"{str(error['loc'][0]).upper()}: {message[0].lower()}{message[1:]}"]
