"""A headless Chromium for looking at reports: Debian's package, driven by Playwright."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, sync_playwright

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
    if shutil.which("apt-get") and os.geteuid() == 0:
        quiet = {"check": True, "capture_output": True}
        subprocess.run(["apt-get", "update"], **quiet)  # type: ignore[call-overload]
        command = ["apt-get", "install", "-y", "--no-install-recommends", "chromium"]
        subprocess.run(command, **quiet)  # type: ignore[call-overload]
    path = shutil.which("chromium")
    if path is None:
        if os.environ.get("CI"):
            raise RuntimeError("Chromium is needed: apt-get install chromium")
        pytest.skip("Chromium is not installed: apt-get install chromium")
    return path
