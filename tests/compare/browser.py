"""A headless Chromium for looking at reports: Debian's package, driven by Playwright."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, sync_playwright

from native_brokers.software import CHROMIUM

_FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


@contextmanager
def chromium() -> Iterator[Browser]:
    """A running browser with a fresh profile. Installs the package if it is missing."""
    CHROMIUM.install()
    path = CHROMIUM.path()
    with tempfile.TemporaryDirectory() as home, sync_playwright() as playwright:
        environment = {**os.environ, "HOME": home}
        browser = playwright.chromium.launch(executable_path=path, args=_FLAGS, env=environment)
        try:
            yield browser
        finally:
            browser.close()
