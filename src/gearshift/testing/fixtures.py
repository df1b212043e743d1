"""A fixture for pytest: ``from gearshift.testing.fixtures import harness``, in conftest.py."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gearshift.testing.harness import Harness, open_harness

__all__ = ["harness"]


@pytest.fixture
def harness() -> Iterator[Harness]:
    """A new broker in memory, with the channels of ``gearshift.toml``, for each test."""
    with open_harness() as opened:
        yield opened
