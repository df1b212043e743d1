"""The kit on real RabbitMQ and Kafka."""

from __future__ import annotations

from typing import Any

import pytest

from gearshift import config, plugins
from gearshift.conformance import Harness
from gearshift.message import Semantics
from native_brokers import Kafka, RabbitMQ

pytestmark = [pytest.mark.broker, pytest.mark.timeout(240)]

OFFERED = [
    (backend, semantics)
    for backend in ("rabbitmq", "kafka")
    for semantics in plugins.load(backend).capabilities
]


@pytest.fixture(scope="module", params=OFFERED, ids=lambda offered: "-".join(offered))
def gearshift_backend(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Harness:
    """Every semantics that the two backends offer."""
    backend, semantics = request.param
    broker = request.getfixturevalue(backend)
    file = tmp_path_factory.mktemp("kit") / "gearshift.toml"
    file.write_text(f"[profiles.kit]\n{profile(broker)}\n")
    return Harness(config=config.load(file), semantics=Semantics(semantics), pace=0.3)


def profile(broker: Any) -> str:
    """The settings that reach ``broker``."""
    if isinstance(broker, Kafka):
        return f'backend = "kafka"\nbootstrap_servers = ["{broker.url}"]'
    assert isinstance(broker, RabbitMQ)
    return f'backend = "rabbitmq"\nurl = "{broker.url}"'
