"""Chaos over a backend under test: what befalls a load, in behaviours of the kit.

Its sentences about a broker on which nothing breaks are proved with messages that come late, which
breaks nothing; those about a bad day with everything that chaos does.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from gearshift import config
from gearshift.chaos import ChaosBackend, Settings
from gearshift.chaos.settings import Rates
from gearshift.conformance import Area, Harness, execute, shared
from gearshift.conformance.behaviour import Behaviour, behaviour
from gearshift.conformance.harness import lives_in_process
from gearshift.conformance.history import Kind
from gearshift.conformance.kit import Kit
from gearshift.conformance.load import BEFORE, Load

__all__ = ["MISFORTUNES", "test_what_chaos_does_is_declared", "under_chaos"]

#: Connections are lost a few times in a load: each loss in a row makes the next wait longer.
_EVERYTHING = Settings(
    over="p", seed=7, rate=0.01, rates=Rates(late=0.05), quiet_s=0.0, late_s=0.05
)
_LATE = 'backend = "chaos"\nover = "p"\nrate = 0.0\nrates.late = 0.2\nlate_s = 0.05'


def under_chaos(harness: Harness) -> Harness:
    """``harness``, whose profile has chaos over it: messages come late."""
    file = Path(str(harness.config.file))
    text = file.read_text().replace('profile = "p"', 'profile = "chaos"', 1)
    file = file.with_name(f"chaos-{file.name}")
    file.write_text(f"{text}\n[profiles.chaos]\n{_LATE}\n")
    loaded = config.load(file)
    plugin = loaded.load_plugin()
    return replace(
        harness,
        config=loaded,
        plugin=shared(plugin) if lives_in_process(plugin) else plugin,
        edition=f"{harness.edition} under chaos".strip(),
    )


@contextmanager
def _misfortunes(kit: Kit) -> Iterator[None]:
    """Clients that are made in the block have bad luck for as long as they live."""
    harness = kit.harness
    below = harness.plugin

    def connect(settings: object) -> ChaosBackend:
        return ChaosBackend(below.connect(settings), _EVERYTHING, below.capabilities)

    kit.harness = replace(harness, plugin=replace(below, connect=connect))
    try:
        yield
    finally:
        kit.harness = harness


def _bear(kit: Kit, members: int) -> None:
    channel = kit.channel(max_attempts=100)
    with _misfortunes(kit):
        load = Load(kit, channel, members=members, batch=10)
    with load:
        load.advance(BEFORE)
        kit.until(lambda: _have_lost(kit, "producers"), "no producer has lost its connection")
        kit.until(lambda: _have_lost(kit, "group"), "no consumer has lost its connection")
    kit.verify(channel)


def _have_lost(kit: Kit, who: str) -> bool:
    return any(who in event.note for event in kit.history.events(Kind.FAULT))


@behaviour(Area.FAULTS, capability="redelivery", deliveries=BEFORE)
def one_consumer_bears_misfortunes(kit: Kit) -> None:
    """Connections lost at any step, and late messages: all comes, in the order that is promised."""
    _bear(kit, members=1)


@behaviour(Area.FAULTS, capability="redelivery", deliveries=BEFORE)
def a_group_bears_misfortunes(kit: Kit) -> None:
    """The same for two consumers of a group."""
    _bear(kit, members=2)


MISFORTUNES: tuple[Behaviour, ...] = (one_consumer_bears_misfortunes, a_group_bears_misfortunes)


@pytest.mark.parametrize("behaviour", MISFORTUNES, ids=lambda one: one.name)
def test_what_chaos_does_is_declared(gearshift_backend: Harness, behaviour: Behaviour) -> None:
    """Under load the kit finds nothing that the capabilities do not allow."""
    result = execute(behaviour, gearshift_backend)
    assert not result.status.is_failure, result.text
