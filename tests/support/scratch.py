"""pytest hooks: temporary folders in memory, where there is room, gone at the end of the run.

Brokers and SQLite have the disk store each confirmed message. Tests end processes and never the
machine, so nothing that they see depends on the disk, and it is what a run would wait for.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest

_MEMORY = Path("/dev/shm")
_ROOM_BYTES = 8 * 1024**3
_NAME = "gearshift-tests-"

_FOLDER = pytest.StashKey[str]()


def pytest_configure(config: pytest.Config) -> None:
    """Before any worker starts: they take it over, as everything that tests start does."""
    if "TMPDIR" in os.environ or not _MEMORY.is_dir():
        return
    for left in _MEMORY.glob(f"{_NAME}*-*"):  # of a run that was killed
        if not Path("/proc", left.name.removeprefix(_NAME).partition("-")[0]).exists():
            shutil.rmtree(left, ignore_errors=True)
    if shutil.disk_usage(_MEMORY).free >= _ROOM_BYTES:
        folder = tempfile.mkdtemp(dir=_MEMORY, prefix=f"{_NAME}{os.getpid()}-")
        os.chmod(folder, 0o755)  # brokers run as users of their own
        config.stash[_FOLDER] = os.environ["TMPDIR"] = tempfile.tempdir = folder


def pytest_unconfigure(config: pytest.Config) -> None:
    """Nothing of a run stays in memory."""
    if _FOLDER in config.stash:
        shutil.rmtree(config.stash[_FOLDER], ignore_errors=True)
