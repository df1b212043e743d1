"""The whole kit on clusters of three nodes, whose faults here are faults of all three at once.

`make conformance` names this file; `make soak-clusters` breaks single nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import cast

import pytest
from soak.clusters import SUBJECTS, harness, running

from gearshift.conformance import Faults, Harness
from gearshift.conformance.proxy import Proxy
from gearshift.message import Semantics

pytestmark = [pytest.mark.broker, pytest.mark.timeout(600)]

#: The columns' names, and what tells them from those of one node.
EDITIONS = {"rabbitmq-4.3": "4.3 cluster", "kafka-4.4": "4.4 cluster"}


class Cables:
    """Those to all nodes, treated as one `Proxy`."""

    def __init__(self, cables: Sequence[Proxy]) -> None:
        self._cables = cables

    @property
    def cuts(self) -> int:
        return sum(cable.cuts for cable in self._cables)

    def __getattr__(self, name: str) -> Callable[..., object]:
        return lambda *given, **named: [getattr(one, name)(*given, **named) for one in self._cables]


@pytest.fixture(
    scope="module", params=[(name, one) for name in EDITIONS for one in Semantics], ids="-".join
)
def gearshift_backend(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Harness]:
    name, semantics = request.param
    with running(SUBJECTS[name]) as target:
        cables = cast(Proxy, Cables(target.cables))
        made = harness(SUBJECTS[name], semantics, target.cables, tmp_path_factory.mktemp("kit"))
        yield replace(
            made,
            faults=Faults(broker=target.cluster, cable=cables, workers=True),
            lease_s=8 if name.startswith("kafka") else 5,
            pace=0.3,
            edition=EDITIONS[name],
        )
