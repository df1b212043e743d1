"""The Backend of ``sqlite``."""

from __future__ import annotations

from collections.abc import Sequence

from gearshift.driver import ChannelSpec, ConsumerSpec, LogEvents
from gearshift.embedded.log import EmbeddedLog
from gearshift.embedded.sqlite.admin import SqliteAdmin
from gearshift.embedded.sqlite.faults import classify
from gearshift.embedded.sqlite.log import SqliteLogStore
from gearshift.embedded.sqlite.producer import SqliteProducer
from gearshift.embedded.sqlite.queue import SqliteQueue
from gearshift.embedded.sqlite.settings import SqliteSettings
from gearshift.embedded.sqlite.store import Store
from gearshift.errors import GearshiftError

__all__ = ["SqliteBackend"]


class SqliteBackend:
    """One database file. Any thread."""

    def __init__(self, settings: SqliteSettings) -> None:
        self._store = Store(settings)

    def endpoints(self) -> Sequence[tuple[str, int]]:
        return ()

    def check(self, channel: ChannelSpec) -> None:
        """Nothing that a channel can set is beyond this backend."""

    def admin(self) -> SqliteAdmin:
        self._store.writer()
        return SqliteAdmin(self._store)

    def producer(self, channel: ChannelSpec) -> SqliteProducer:
        return SqliteProducer(self._store, channel)

    def queue_consumer(self, spec: ConsumerSpec) -> SqliteQueue:
        return SqliteQueue(self._store, spec)

    def log_consumer(self, spec: ConsumerSpec, events: LogEvents) -> EmbeddedLog:
        return EmbeddedLog(SqliteLogStore(self._store, spec), events)

    def classify(self, error: Exception) -> GearshiftError | None:
        return classify(error)

    def close(self) -> None:
        self._store.close()
