"""The whole kit through the async face on real brokers; `make conformance` names this file."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from conformance.async_face import awaited
from conformance.conftest import SERVERS, breakable, offered

from gearshift.conformance import Harness

pytestmark = [pytest.mark.broker, pytest.mark.timeout(300)]


@pytest.fixture(scope="module", params=offered(SERVERS), ids="-".join)
def gearshift_backend(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Harness]:
    """Every semantics that the backends offer, on every server."""
    name, semantics = request.param
    with breakable(SERVERS[name], semantics, tmp_path_factory.mktemp("kit")) as harness:
        yield awaited(harness)
