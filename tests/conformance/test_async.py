"""The kit through the async face, on the embedded backends; real brokers: ``async_brokers.py``."""

from __future__ import annotations

import pytest
from conformance.async_face import awaited
from conformance.conftest import embedded

from gearshift.conformance import Faults, Harness
from gearshift.message import Semantics


@pytest.fixture(scope="module", params=["memory", "sqlite"])
def backend(request: pytest.FixtureRequest) -> str:
    """The name of an embedded backend."""
    return str(request.param)


@pytest.fixture(scope="module", params=list(Semantics))
def gearshift_backend(
    request: pytest.FixtureRequest, backend: str, tmp_path_factory: pytest.TempPathFactory
) -> Harness:
    """Both semantics."""
    return awaited(
        embedded(
            backend,
            request.param,
            tmp_path_factory.mktemp("kit"),
            faults=Faults(broker=None, cable=None, workers=backend == "sqlite"),
            pace=0.3,
            lease_s=6.0 if backend == "sqlite" else 2.0,
        )
    )
