"""The whole kit on real RabbitMQ and Kafka, each a broker of its own that is broken for real."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from conformance.conftest import SERVERS, breakable

from gearshift import plugins
from gearshift.conformance import Harness

pytestmark = [pytest.mark.broker, pytest.mark.timeout(300)]

OFFERED = [
    (name, semantics)
    for name, server in SERVERS.items()
    for semantics in plugins.load(server.backend).capabilities
]


@pytest.fixture(scope="module", params=OFFERED, ids=lambda offered: "-".join(offered))
def gearshift_backend(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Harness]:
    """Every semantics that the backends offer, on every server."""
    name, semantics = request.param
    with breakable(SERVERS[name], semantics, tmp_path_factory.mktemp("kit")) as harness:
        yield harness
