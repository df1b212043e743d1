"""A backend that is broken on purpose, for a process of its own: it believes whom it took for dead.

SQLite, but a consumer does not notice that its lease is over, and its retry stores the message
again whoever has it by now: what a broker does on which anybody may settle anything.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from conformance.mutants import Backend
from msgspec import structs

from gearshift.driver import BackendPlugin, ConsumerSpec, Received, Settlement, SettleRequest
from gearshift.driver.helpers import Wrapper
from gearshift.driver.plugin import hookimpl
from gearshift.embedded.sqlite import gearshift_backend as original
from gearshift.embedded.sqlite.errors import LeaseOver

NAME = "late-word"


class _Consumer(Wrapper):
    producer: Any

    def receive(self, max_messages: int, timeout_s: float) -> Sequence[Received]:
        try:
            return self.inner.receive(max_messages, timeout_s)
        except LeaseOver:
            return ()

    def settle(self, requests: Sequence[SettleRequest]) -> Sequence[Any]:
        retried = [one for one in requests if one.settlement is Settlement.RETRY]
        stored = threading.Event()
        self.producer.submit([one.message for one in retried], lambda outcomes: stored.set())
        stored.wait(5.0)
        self.inner.settle(
            [
                structs.replace(one, settlement=Settlement.ACK) if one in retried else one
                for one in requests
            ]
        )
        return ()


class _Believing(Backend):
    def queue_consumer(self, spec: ConsumerSpec) -> _Consumer:
        consumer = _Consumer(self.inner.queue_consumer(spec))
        consumer.producer = self.inner.producer(spec.channel)
        return consumer


@hookimpl
def gearshift_backend() -> BackendPlugin:
    """The plugin."""
    plugin = original()
    return replace(plugin, name=NAME, connect=lambda s: _Believing(plugin.connect(s)))
