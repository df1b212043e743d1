"""The embedded backends, which need no server."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import gearshift

Open = Callable[[str], gearshift.Bus]

CHANNELS = """
[channels.orders]
groups = ["billing", "audit"]
retry_delay_s = 0.01
retry_max_delay_s = 0.05
max_attempts = 3
[channels.events]
semantics = "stream"
retry_delay_s = 0.01
retry_max_delay_s = 0.05
max_attempts = 3
"""


@pytest.fixture(params=["memory", "sqlite"])
def backend(request: pytest.FixtureRequest) -> str:
    """The name of an embedded backend."""
    return str(request.param)


@pytest.fixture
def open_bus(backend: str, tmp_path: Path) -> Iterator[Open]:
    """Opens a bus with these channels; closed at the end."""
    with contextlib.ExitStack() as stack:

        def make(channels: str) -> gearshift.Bus:
            path = 'path = "test.db"' if backend == "sqlite" else ""
            file = tmp_path / "gearshift.toml"
            file.write_text(
                f'profile = "p"\n[profiles.p]\nbackend = "{backend}"\n{path}\n{channels}'
            )
            return stack.enter_context(gearshift.open(file))

        yield make


@pytest.fixture
def bus(open_bus: Open) -> gearshift.Bus:
    """An open bus with a queue ``orders`` and a stream ``events``."""
    return open_bus(CHANNELS)
