"""Every behaviour of the kit, in the order in which it is run."""

from gearshift.conformance.behaviour import Behaviour
from gearshift.conformance.suite import (
    faults,
    fidelity,
    flow,
    groups,
    order,
    publish,
    replay,
    settle,
    stress,
    topology,
)

__all__ = ["SUITE"]

_MODULES = (publish, fidelity, settle, order, groups, flow, topology, replay, stress, faults)

SUITE: tuple[Behaviour, ...] = tuple(
    value for module in _MODULES for value in vars(module).values() if isinstance(value, Behaviour)
)
