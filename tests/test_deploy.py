"""The deploy files tell the truth, as far as it can be told without an engine or a platform."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from pages import PAGE_POLICY
from settings import Settings
from tests.stage import ROOT, SECRET, redis_process

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
DOCKERFILE = (ROOT / "Dockerfile").read_text()


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working directory that the Dockerfile's COPY lines make."""
    directory = tmp_path_factory.mktemp("image")
    for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE.split("WORKDIR /app")[1], re.M):
        *sources, target = line.split()
        for source in (found for pattern in sources for found in ROOT.glob(pattern)):
            if source.name == "test_client.py":
                continue
            if source.is_dir():
                shutil.copytree(source, directory / target, ignore=shutil.ignore_patterns("__py*"))
            else:
                shutil.copy(source, directory)
    return directory


def in_image(image: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    """`python server.py check` as the image would run it: its files, its environment, no more."""
    said = dict(
        re.findall(r"(\w+)=(\S+)", " ".join(re.findall(r"ENV ((?:.|\\\n)+?)\n[A-Z]", DOCKERFILE)))
    )
    said.pop("PATH", None)
    return subprocess.run(
        [sys.executable, "server.py", "check"],
        cwd=image,
        env={"PATH": os.environ["PATH"], **said, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_image_holds_all_that_serving_needs(image: Path) -> None:
    """With what the Dockerfile copies, and its environment, a production server is fit to serve."""
    with redis_process("--appendonly", "yes", "--maxmemory-policy", "noeviction") as url:
        run = in_image(
            image,
            REDIS_URL=url,
            OPENAI_API_KEY="sk-of-the-operator",
            API_SECRET_KEY=SECRET,
            ALLOWED_ORIGINS="https://page.example",
        )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "redis      ok" in run.stdout


def test_the_image_is_for_production(image: Path) -> None:
    """Without settings the image's server refuses, and names all that is missing."""
    run = in_image(image)
    assert run.returncode == 1
    for name in ("REDIS_URL", "OPENAI_API_KEY", "API_SECRET_KEY", "ALLOWED_ORIGINS"):
        assert f"{name}: is required in production" in run.stdout


def test_the_image_runs_as_nobody_and_holds_no_secret() -> None:
    """The last user is a number, there is a health check, and no setting of ours is baked in."""
    assert re.findall(r"^USER (.+)$", DOCKERFILE, re.M)[-1].isdecimal()
    assert "HEALTHCHECK" in DOCKERFILE
    assert not re.search(r"KEY\s*=|REDIS_URL\s*=|ARG", DOCKERFILE.replace("KEYTURN", ""))


def test_nothing_but_what_is_copied_reaches_the_builder() -> None:
    """The builder's context leaves everything out, then lets in what the Dockerfile copies."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    lines = [line for line in lines if line and not line.startswith("#")]
    assert lines[0] == "*"
    assert not [line for line in lines if ".env" in line or ".git" in line]


def test_what_is_not_served_stays_here(image: Path) -> None:
    """Tests, measurements, examples and the visitor's scenario get to neither image nor Vercel."""
    hidden = (ROOT / ".vercelignore").read_text().splitlines()
    let_in = (ROOT / ".dockerignore").read_text().splitlines()
    for name in ("tests", "bench", "examples", "test_client.py"):
        assert (ROOT / name).exists()
        assert name in hidden
        assert f"!{name}" not in let_in
        assert not (image / name).exists()


def test_the_composed_redis_keeps_what_it_acknowledged() -> None:
    """Compose's Redis persists, never evicts, and Keyturn waits until it is healthy."""
    redis = COMPOSE["services"]["redis"]
    options = dict(zip(redis["command"][1::2], redis["command"][2::2], strict=True))
    assert options["--appendonly"] == "yes"
    assert options["--maxmemory-policy"] == "noeviction"
    assert redis["healthcheck"]["test"]
    assert redis["volumes"]
    for name in ("keyturn", "demo"):
        waits_for = COMPOSE["services"][name]["depends_on"]["redis"]
        assert waits_for == {"condition": "service_healthy"}


def test_the_trusted_proxy_is_the_gateway_of_the_network() -> None:
    """Requests of a proxy on the host come from the gateway: that address and no other counts."""
    (network,) = COMPOSE["networks"]["keyturn"]["ipam"]["config"]
    for name in ("keyturn", "demo"):
        service = COMPOSE["services"][name]
        assert service["environment"]["TRUSTED_PROXIES"] == network["gateway"]
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])


def test_the_override_for_key_files_fits() -> None:
    """What docs/deploy/compose.md shows: a folder, read-only, in which the settings find files."""
    page = (ROOT / "docs" / "deploy" / "compose.md").read_text()
    override = yaml.safe_load(page.partition("```yaml\n")[2].partition("```")[0])
    ((name, service),) = override["services"].items()
    assert name in COMPOSE["services"]
    (volume,) = service["volumes"]
    _, folder, mode = volume.split(":")
    assert mode == "ro"
    assert not Path(folder).suffix
    for setting, file in service["environment"].items():
        assert setting.lower() in Settings.model_fields
        assert str(Path(file).parent) == folder


def test_only_the_demo_is_without_a_key() -> None:
    """The demo stands behind its profile and reads no .env; the real one is production."""
    demo, real = COMPOSE["services"]["demo"], COMPOSE["services"]["keyturn"]
    assert demo["profiles"] == ["demo"]
    assert "env_file" not in demo
    assert real["environment"]["KEYTURN_ENV"] == "production"
    assert real["env_file"] == [{"path": ".env", "required": False}]


def test_vercel_serves_the_app_and_the_same_policy() -> None:
    """vercel.json names server.py with its longest duration and repeats the page's CSP."""
    vercel = json.loads((ROOT / "vercel.json").read_text())
    assert "builds" not in vercel
    assert vercel["functions"] == {"server.py": {"maxDuration": 300}}
    headers = {item["key"]: item["value"] for rule in vercel["headers"] for item in rule["headers"]}
    assert headers["Content-Security-Policy"] == PAGE_POLICY


def test_vercel_reads_the_requirements() -> None:
    """pyproject.toml, which lists no dependencies, is hidden from Vercel's builder."""
    hidden = (ROOT / ".vercelignore").read_text().splitlines()
    assert "pyproject.toml" in hidden
    assert "requirements.txt" not in hidden
