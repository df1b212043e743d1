"""Which node of a RabbitMQ cluster a test is connected to."""

from __future__ import annotations

import itertools

import pytest

from gearshift_rabbitmq.nodes import Nodes


def try_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each bus tries the nodes in the order of its settings, where else it draws one."""
    monkeypatch.setattr(
        "gearshift_rabbitmq.backend.Nodes", lambda: Nodes(draw=itertools.count().__next__)
    )
