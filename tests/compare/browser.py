"""A headless Chromium for looking at reports: Debian's package, driven by Playwright."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, sync_playwright

from native_brokers import BrokerUnavailable
from native_brokers.apt import apt_install

_FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


@contextmanager
def chromium() -> Iterator[Browser]:
    """A running browser with a fresh profile. Installs the package where it may."""
    path = shutil.which("chromium") or _install()
    with tempfile.TemporaryDirectory() as home, sync_playwright() as playwright:
        environment = {**os.environ, "HOME": home}
        browser = playwright.chromium.launch(executable_path=path, args=_FLAGS, env=environment)
        try:
            yield browser
        finally:
            browser.close()


def _install() -> str:
    try:
        apt_install("chromium")
    except BrokerUnavailable as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
    path = shutil.which("chromium")
    assert path is not None
    return path
