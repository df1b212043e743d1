"""The kit on real brokers under chaos; `make conformance` names this file."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from conformance.conftest import SERVERS, breakable, offered
from conformance.misfortunes import MISFORTUNES, under_chaos

from gearshift.conformance import Harness, execute
from gearshift.conformance.behaviour import Behaviour

pytestmark = [pytest.mark.broker, pytest.mark.timeout(300)]


@pytest.fixture(scope="module", params=offered(SERVERS), ids="-".join)
def gearshift_backend(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Harness]:
    """Every semantics that the backends offer, on every server."""
    name, semantics = request.param
    with breakable(SERVERS[name], semantics, tmp_path_factory.mktemp("kit")) as harness:
        yield under_chaos(harness)


@pytest.mark.parametrize("behaviour", MISFORTUNES, ids=lambda one: one.name)
def test_what_chaos_does_is_declared(gearshift_backend: Harness, behaviour: Behaviour) -> None:
    """Under load the kit finds nothing that the capabilities do not allow."""
    result = execute(behaviour, gearshift_backend)
    assert not result.status.is_failure, result.text
