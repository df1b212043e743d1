"""The kit on the embedded backends."""

from __future__ import annotations

import pytest
from conformance.conftest import unbroken

from gearshift.conformance import Harness
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
    return unbroken(backend, request.param, tmp_path_factory.mktemp("kit"))
