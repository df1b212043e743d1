"""The embedded backends, which need no server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.buses import OpenBus, opening

import gearshift

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
def open_bus(backend: str, tmp_path: Path) -> Iterator[OpenBus]:
    """Opens a bus with these channels; closed at the end."""
    with opening(backend, tmp_path) as open_bus:
        yield open_bus


@pytest.fixture
def bus(open_bus: OpenBus) -> gearshift.Bus:
    """An open bus with a queue ``orders`` and a stream ``events``."""
    return open_bus(CHANNELS)
