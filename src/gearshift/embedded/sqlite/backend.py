"""The Backend of ``sqlite``."""

from __future__ import annotations

from gearshift import driver
from gearshift.driver import ChannelSpec, ConsumerSpec, LogEvents
from gearshift.embedded.sqlite.admin import Admin
from gearshift.embedded.sqlite.errors import classify
from gearshift.embedded.sqlite.producer import Producer
from gearshift.embedded.sqlite.queue import QueueConsumer
from gearshift.embedded.sqlite.settings import Settings
from gearshift.embedded.sqlite.store import Store
from gearshift.embedded.sqlite.stream import Member
from gearshift.embedded.stream import StreamConsumer
from gearshift.errors import GearshiftError

__all__ = ["Backend"]


class Backend(driver.Backend):
    """One database file. Any thread."""

    def __init__(self, settings: Settings) -> None:
        self._store = Store(settings)

    def admin(self) -> Admin:
        self._store.writer()
        return Admin(self._store)

    def producer(self, channel: ChannelSpec) -> Producer:
        return Producer(self._store, channel)

    def queue_consumer(self, spec: ConsumerSpec) -> QueueConsumer:
        return QueueConsumer(self._store, spec)

    def log_consumer(self, spec: ConsumerSpec, events: LogEvents) -> StreamConsumer:
        return StreamConsumer(Member(self._store, spec), events)

    def classify(self, error: Exception) -> GearshiftError | None:
        return classify(error)

    def close(self) -> None:
        self._store.close()
