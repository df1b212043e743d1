"""The embedded backends, which need no server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import gearshift

Open = Callable[..., gearshift.Bus]

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
def bus(backend: str, tmp_path: Path) -> Iterator[gearshift.Bus]:
    """An open bus with a queue ``orders`` and a stream ``events``."""
    path = 'path = "test.db"' if backend == "sqlite" else ""
    file = tmp_path / "gearshift.toml"
    file.write_text(f'profile = "p"\n[profiles.p]\nbackend = "{backend}"\n{path}\n{CHANNELS}')
    with gearshift.open(file) as opened:
        yield opened
