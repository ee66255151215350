"""Two other gateways under the same attacks, as far as these make sense without our headers.

Each is installed by its own package manager under `.peers/`, and set up as its documentation
advises for production, as far as it goes without a database or a licence:

* LiteLLM's proxy: a master key, two models with the operator's key, no retries, no documentation
  pages, quiet logs, uvicorn as its command runs it. Virtual keys, and the budgets and rates that
  hang on them, need Postgres; a limit of the request's size needs a licence.
* Portkey's gateway: in production mode, the two upstreams as its only trusted hosts. It holds no
  key: whoever calls it brings the provider's, so here the attacker has the operator's.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from attacks.attacker import Target
from attacks.case import Place
from attacks.stage import Stage
from tests.attacks.canaries import OPERATORS
from tests.command_stage import answers, free_port, started
from tests.stage import ROOT, wait_until

HOME: Final = ROOT / ".peers/attacked"  # other versions than those that are measured
LITELLM: Final = "1.108.7"
PORTKEY: Final = "1.15.2"
# With the newer ones that npm would take, on Node 20, it answers each streamed turn with a 500.
NODE_SERVER: Final = "1.13.7"
PACKAGE: Final = {
    "dependencies": {"@portkey-ai/gateway": PORTKEY},
    "overrides": {"@hono/node-server": NODE_SERVER},
}
MASTER_KEY: Final = "sk-master-Gg72hWqLxNc5Vt9B"
INSTALLING: Final = 900  # seconds, for one of them
STARTING: Final = 120

# What neither says that it does: the cases of these headings tell nothing about them.
UNCLAIMED: Final = {
    "money": "what may be asked for is left to the caller",
    "Unicode and prompts": "text is passed on as it is",
}


@dataclass(frozen=True)
class Peer:
    """A gateway that runs, and where to send what."""

    name: str
    main: Target
    strict: Target

    def target(self, place: Place) -> Target:
        """Where a case goes that would go to this place of ours."""
        return self.main if place == "main" else self.strict


@contextmanager
def peers(stage: Stage) -> Iterator[list[Peer]]:
    """Both, installed where they are not, and running before the upstreams of the stage."""
    install()
    with ExitStack() as stack:
        yield [stack.enter_context(litellm(stage)), stack.enter_context(portkey(stage))]


def install() -> None:
    """Install what is missing, by pip and by npm."""
    HOME.mkdir(parents=True, exist_ok=True)
    if not (HOME / "litellm/bin/litellm").exists():
        _run(sys.executable, "-m", "venv", str(HOME / "litellm"))
        _run(str(HOME / "litellm/bin/pip"), "install", "--quiet", f"litellm[proxy]=={LITELLM}")
    if not (HOME / "portkey/node_modules").exists():
        (HOME / "portkey").mkdir(exist_ok=True)
        (HOME / "portkey/package.json").write_text(json.dumps(PACKAGE))
        _run("npm", "install", "--no-audit", "--no-fund", "--prefix", str(HOME / "portkey"))


def _run(*command: str) -> None:
    print("installing:", *command[1:], file=sys.stderr)
    subprocess.run(command, check=True, timeout=INSTALLING, stdout=subprocess.DEVNULL)


def _model(name: str, url: str) -> str:
    return f"""
  - model_name: {name}
    litellm_params:
      model: openai/{name}
      api_base: {url}
      api_key: os.environ/OPENAI_API_KEY
      max_retries: 0
"""


@contextmanager
def litellm(stage: Stage) -> Iterator[Peer]:
    """LiteLLM's proxy."""
    home, port = _folder("run-litellm"), free_port()
    (home / "config.yaml").write_text(
        "model_list:"
        + _model(stage.main.model, stage.scripted.url)
        + _model(stage.strict.model, stage.rogue.url)
        + """
litellm_settings: {request_timeout: 60, num_retries: 0, set_verbose: false, json_logs: true}
router_settings: {num_retries: 0, disable_cooldowns: true}
general_settings: {master_key: os.environ/LITELLM_MASTER_KEY, disable_error_logs: true}
"""
    )
    command = (str(HOME / "litellm/bin/litellm"), "--config", "config.yaml", "--port", port)
    said = {
        "OPENAI_API_KEY": OPERATORS["operator's key"],
        "LITELLM_MASTER_KEY": MASTER_KEY,
        "LITELLM_LOG": "ERROR",
        "LITELLM_MODE": "PRODUCTION",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        **dict.fromkeys(("NO_DOCS", "NO_REDOC", "NO_OPENAPI"), "True"),
        "PYTHONPATH": "",
    }
    with started((*command, "--host", "127.0.0.1"), home, **said) as running:
        wait_until(lambda: answers(f"http://127.0.0.1:{port}", "/health/liveliness"), STARTING)
        shown = {"Authorization": f"Bearer {MASTER_KEY}"}
        main = Target("litellm", int(port), stage.main.model, credentials=shown)
        yield Peer(f"LiteLLM {LITELLM}", main, replace(main, model=stage.strict.model))
        assert running.process.poll() is None, running.said


@contextmanager
def portkey(stage: Stage) -> Iterator[Peer]:
    """Portkey's gateway."""
    port = free_port()
    program = HOME / "portkey/node_modules/@portkey-ai/gateway/build/start-server.js"
    said = {"NODE_ENV": "production", "TRUSTED_CUSTOM_HOSTS": "127.0.0.1"}
    command = ("node", str(program), f"--port={port}", "--headless")
    with started(command, _folder("run-portkey"), **said) as running:
        wait_until(lambda: answers(f"http://127.0.0.1:{port}", "/"), STARTING)
        main = Target("portkey", int(port), stage.main.model, credentials=_by(stage.scripted.url))
        strict = replace(main, model=stage.strict.model, credentials=_by(stage.rogue.url))
        yield Peer(f"Portkey {PORTKEY}", main, strict)
        assert running.process.poll() is None, running.said


def _by(url: str) -> dict[str, str]:
    key = OPERATORS["operator's key"]
    shown = {"Authorization": f"Bearer {key}", "x-portkey-provider": "openai"}
    return {**shown, "x-portkey-custom-host": url}


def _folder(name: str) -> Path:
    folder = HOME / name
    folder.mkdir(exist_ok=True)
    return folder
