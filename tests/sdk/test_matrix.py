"""Every SDK in every situation, each with its real outcome."""

import json
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Page

from security.one_time_token import TokenSigner
from tests.browser.page_stage import NEEDS_CHROMIUM
from tests.cutting_proxy import CuttingProxy, cutting_proxy
from tests.sdk.bundles import NEEDS_SDKS
from tests.sdk.chats import Chat, async_chat, helper_chat, page_chat, sync_chat
from tests.stage import SECRET, Server, Upstream, now_ms, serving, settings_with, visiting
from tests.upstream import play

pytestmark = [NEEDS_CHROMIUM, NEEDS_SDKS, pytest.mark.asyncio(loop_scope="module")]

