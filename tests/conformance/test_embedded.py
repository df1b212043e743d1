"""The kit on the embedded backends."""

from __future__ import annotations

import pytest

from gearshift import config, plugins
from gearshift.conformance import Faults, Harness, shared
from gearshift.message import Semantics

LEASE_S = 2.0


@pytest.fixture(scope="module", params=["memory", "sqlite"])
def backend(request: pytest.FixtureRequest) -> str:
    """The name of an embedded backend."""
    return str(request.param)


@pytest.fixture(scope="module", params=list(Semantics))
def gearshift_backend(
    request: pytest.FixtureRequest, backend: str, tmp_path_factory: pytest.TempPathFactory
) -> Harness:
    """Both semantics; other processes reach SQLite, and nothing but this one reaches memory."""
    settings = f'path = "kit.db"\nlease_s = {LEASE_S}' if backend == "sqlite" else ""
    file = tmp_path_factory.mktemp("kit") / "gearshift.toml"
    file.write_text(f'[profiles.kit]\nbackend = "{backend}"\n{settings}\n')
    plugin = plugins.load(backend)
    return Harness(
        config=config.load(file),
        semantics=request.param,
        plugin=shared(plugin) if backend == "memory" else plugin,
        faults=Faults(broker=None, cable=None, workers=backend == "sqlite"),
        pace=0.3,
        lease_s=LEASE_S,
    )
