"""Every behaviour of the kit, in the order in which it is run."""

from gearshift.conformance.behaviour import Behaviour
from gearshift.conformance.suite import (
    broker_faults,
    fidelity,
    flow,
    groups,
    network_faults,
    order,
    publish,
    replay,
    settle,
    stress,
    topology,
    worker_faults,
)

__all__ = ["SUITE"]

_MODULES = (
    publish, fidelity, settle, order, groups, flow, topology, replay, stress,
    broker_faults, network_faults, worker_faults,
)  # fmt: skip

SUITE: tuple[Behaviour, ...] = tuple(
    value for module in _MODULES for value in vars(module).values() if isinstance(value, Behaviour)
)
