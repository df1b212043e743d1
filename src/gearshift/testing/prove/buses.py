"""What handlers send while they are proved: kept in the simulation, whatever profile they open."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from gearshift.bus import Bus
from gearshift.bus.opening import opening_by
from gearshift.config import Config
from gearshift.driver import (
    Backend,
    BackendPlugin,
    ChannelSpec,
    ConsumerSpec,
    OnOutcomes,
    Outcome,
    ProducerDriver,
    Stored,
)
from gearshift.errors import GearshiftError, NotSupported
from gearshift.hooks.registry import load_hooks
from gearshift.message import Message
from gearshift.rehearsal import Untouched

__all__ = ["SimulatedBuses"]


class SimulatedBuses:
    """Buses whose producers store on ``store``, which each case sets anew. Any thread."""

    def __init__(self, config: Config, plugin: BackendPlugin) -> None:
        self._config = config
        self._plugin = plugin
        self._backend: Any = _SimulatedBackend(self)
        self._buses: list[Bus] = []
        self.store: Callable[[str, Message], object] = lambda channel, message: None

    def bus(self, plugins: Sequence[object] = ()) -> Bus:
        """A bus on the simulated broker; ``close`` closes it."""
        bus = Bus(self._config, self._plugin, self._backend, load_hooks(plugins))
        self._buses.append(bus)
        return bus

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Inside the block every ``gearshift.open`` of this process gives such a bus."""
        with opening_by(lambda *_, plugins=(), **__: self.bus(plugins)):
            yield

    def close(self) -> None:
        """Close all buses that were opened."""
        for bus in self._buses:
            bus.close()


class _SimulatedBackend(Backend):
    """A Backend whose messages go to the simulated broker, which runs the handlers itself."""

    def __init__(self, buses: SimulatedBuses) -> None:
        self._simulated = buses

    def admin(self) -> Untouched:
        return Untouched("the simulated broker of a proof")

    def producer(self, channel: ChannelSpec) -> ProducerDriver:
        return _Producer(self._simulated, channel.name)

    def queue_consumer(self, spec: ConsumerSpec) -> NoReturn:
        raise NotSupported("a proof opens no consumers: its handlers are given what is sent")

    log_consumer: Any = queue_consumer

    def classify(self, error: Exception) -> GearshiftError | None:
        return error if isinstance(error, GearshiftError) else None


class _Producer(ProducerDriver):
    def __init__(self, buses: SimulatedBuses, channel: str) -> None:
        self._simulated = buses
        self._channel = channel

    def submit(self, messages: Sequence[Message], on_outcomes: OnOutcomes) -> None:
        for message in messages:
            self._simulated.store(self._channel, message)
        on_outcomes([Outcome(number, Stored.YES) for number in range(len(messages))])

    def close(self, timeout_s: float) -> None:
        """Nothing is on its way."""
