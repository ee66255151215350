"""Keyturn under gunicorn's own ASGI worker: gunicorn -c deploy/gunicorn.conf.py server:app

The same settings as for `python server.py` decide; see docs/deploy/gunicorn.md for what is missing
here that only that brings.
"""

import os
from contextlib import ExitStack
from typing import Any

from provisions import SHARED
from settings import read_settings
from shared_metrics import shared_directory

_settings = read_settings()
_until_exit = ExitStack()


def on_starting(server: Any) -> None:
    """Give the workers a place to share what they count."""
    os.environ[SHARED] = str(_until_exit.enter_context(shared_directory()))


def on_exit(server: Any) -> None:
    """Take it away again."""
    _until_exit.close()


bind = f"{_settings.host}:{_settings.port}"
workers = _settings.workers
worker_class = "asgi"
asgi_lifespan = "on"  # without it nothing is opened, and nothing settled in the end
worker_connections = 2 * _settings.max_streams
backlog = 2048
keepalive = 75

# Longer than the app's own drain, so that each stream ends as the app wants it to.
graceful_timeout = _settings.drain_seconds + 5

# The log that gunicorn keeps of requests names visitors' addresses.
accesslog = None
control_socket_disable = True  # it would lie in the home of whoever runs this

# Keyturn reads X-Forwarded-For on its own: both would count one hop too many.
forwarded_allow_ips = ""
