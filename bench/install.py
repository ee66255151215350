"""The proxies of others, put into `.peers`: nothing of them touches the machine outside of it."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from tests.stage import ROOT

HOME: Final = ROOT / ".peers"
LITELLM: Final = HOME / "litellm/bin/litellm"
PORTKEY: Final = HOME / "portkey/node_modules/@portkey-ai/gateway/build/start-server.js"
_UNPACKED: Final = HOME / "nginx"
LITELLM_VERSION: Final = "1.106.2"
PORTKEY_VERSION: Final = "1.15.2"
LIMIT: Final = 900  # seconds for one of them


def nginx_program() -> str | None:
    """Where nginx is: the machine's own, or the one unpacked here."""
    places = (os.environ.get("PATH", ""), "/usr/sbin", str(_UNPACKED / "usr/sbin"))
    return shutil.which("nginx", path=os.pathsep.join(places))


def install_peers() -> None:
    """Get those that are missing; one that cannot be had is said and left out."""
    HOME.mkdir(exist_ok=True)
    for name, there, install in (
        ("nginx", nginx_program() is not None, _install_nginx),
        ("litellm", LITELLM.exists(), _install_litellm),
        ("portkey", PORTKEY.exists(), _install_portkey),
    ):
        if there:
            continue
        print(f"installing {name} into {HOME.name}/ ...", file=sys.stderr, flush=True)
        try:
            install()
        except (OSError, subprocess.SubprocessError) as failure:
            print(f"{name} cannot be had here: {failure}", file=sys.stderr)


def _install_nginx() -> None:
    """Debian's package, unpacked and not installed, so that no service is started."""
    with tempfile.TemporaryDirectory(dir=HOME) as directory:
        _run("apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", "nginx", cwd=directory)
        package = next(Path(directory).glob("nginx_*.deb"))
        _run("dpkg", "-x", str(package), str(_UNPACKED))


def _install_litellm() -> None:
    _run(sys.executable, "-m", "venv", "--clear", str(LITELLM.parent.parent))
    pip = (str(LITELLM.parent / "python"), "-m", "pip", "install", "-q")
    _run(*pip, "--disable-pip-version-check", f"litellm[proxy]=={LITELLM_VERSION}")


def _install_portkey() -> None:
    fresh = HOME / "portkey.new"
    quiet = ("--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error")
    _run("npm", "install", "--prefix", str(fresh), *quiet, f"@portkey-ai/gateway@{PORTKEY_VERSION}")
    fresh.rename(HOME / "portkey")  # whole, or not at all


def _run(*command: str, cwd: str | None = None) -> None:
    subprocess.run(command, cwd=cwd, check=True, timeout=LIMIT, stdout=subprocess.DEVNULL)
