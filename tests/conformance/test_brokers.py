"""The whole kit on real RabbitMQ and Kafka, each a broker of its own that is broken for real."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from conformance.conftest import KINDS, breakable

from gearshift import plugins
from gearshift.conformance import Harness

pytestmark = [pytest.mark.broker, pytest.mark.timeout(300)]

OFFERED = [
    (backend, semantics) for backend in KINDS for semantics in plugins.load(backend).capabilities
]


@pytest.fixture(scope="module", params=OFFERED, ids=lambda offered: "-".join(offered))
def gearshift_backend(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Harness]:
    """Every semantics that the two backends offer."""
    backend, semantics = request.param
    with breakable(KINDS[backend], semantics, tmp_path_factory.mktemp("kit")) as harness:
        yield harness
