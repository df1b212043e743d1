"""A worker of a scenario: receives, writes down, handles, settles. On a thread or in a process."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import msgspec

from gearshift.bus import Bus
from gearshift.compare.probe import Probe, call, handler_of, place
from gearshift.compare.tape import Recorder
from gearshift.compare.workload import Order
from gearshift.consumer import Consumer
from gearshift.delivery import Delivery
from gearshift.driver import Start
from gearshift.errors import NotSupported
from gearshift.worker import dispatch
from gearshift.worker.event_loop import EventLoop

__all__ = ["Actor", "Role"]

_POLL_S = 0.1


class Role(msgspec.Struct, frozen=True, kw_only=True):
    """What one worker does.

    ``handler`` is module:function, "" a handler that sleeps ``work_ms`` times the order's effort.
    With ``settle`` "first" it acks before it works. It fails every attempt at ``poison``, hangs
    in its handler at its delivery number ``stuck_at`` and goes back to the start after it has
    done ``seek_after`` messages.
    """

    name: str
    channel: str
    group: str
    prefetch: int
    work_ms: float
    create_group: bool = False
    handler: str = ""
    settle: Literal["after", "first"] = "after"
    poison: int | None = None
    stuck_at: int | None = None
    seek_after: int | None = None


class Actor:
    """Runs one role on the thread that calls ``run``."""

    def __init__(self, bus: Bus, role: Role, recorder: Recorder) -> None:
        self._bus = bus
        self._role = role
        self._recorder = recorder
        self._loop = EventLoop()
        self._handler = handler_of(role.handler) if role.handler else None
        self._deliveries = 0
        self._done = 0
        self._owned: frozenset[int] = frozenset()
        self._stop = threading.Event()

    def run(self, stop: threading.Event) -> None:
        """Work until ``stop`` is set, then drain and leave."""
        role, self._stop = self._role, stop
        self._note("start")
        with (
            contextlib.closing(self._loop),
            self._bus.consumer(
                role.channel,
                group=role.group,
                prefetch=role.prefetch,
                create=role.create_group or None,
                value_type=self._handler.call.value_type if self._handler else Any,
                serial_keys=True,
            ) as consumer,
        ):
            consumer.ready()
            self._note("ready")
            while not stop.is_set():
                self._note_assignment(consumer)
                self._step(consumer)
        self._note("stop")

    def _step(self, consumer: Consumer[Any]) -> None:
        self._recorder.sample(
            "held_messages", consumer.unsettled, who=self._role.name, group=self._role.group
        )
        for delivery in consumer.receive(timeout_s=_POLL_S):
            self._handle(delivery, consumer)
        if self._role.seek_after is not None and self._done == self._role.seek_after:
            self._done += 1  # once
            self._seek(consumer)

    def _handle(self, delivery: Delivery[Any], consumer: Consumer[Any]) -> None:
        self._deliveries += 1
        order = msgspec.json.decode(delivery.body or b"", type=Order)
        note = partial(self._note, seq=order.order_id, key=order.customer, attempt=delivery.attempt)
        note("deliver", redelivered=delivery.redelivered, **place(delivery))
        is_last = self._deliveries == self._role.stuck_at
        probe = Probe(delivery, note, partial(self._hang, note, consumer) if is_last else None)
        if self._role.settle == "first":
            probe.ack()
        ending = dispatch.run(partial(self._work, probe, order), self._loop.wait)
        if ending.failed:
            note("failed", what=type(ending.error).__name__)
        elif ending.action == "ack":
            if is_last:
                self._hang(note)
            note("done")
            self._done += 1
        if delivery.outcome is None:
            ending.settle(probe)

    def _work(self, probe: Probe, order: Order) -> Any:
        if order.order_id == self._role.poison:
            raise ValueError("poison")
        if self._handler is not None:
            return call(self._handler, probe)
        time.sleep(self._role.work_ms * order.effort / 1000)
        return None

    def _seek(self, consumer: Consumer[Any]) -> None:
        consumer.flush()
        try:
            consumer.seek(Start())
        except NotSupported as error:
            self._note("seek", what=f"refused: {error.message}")
        else:
            self._note("seek", what="earliest")

    def _hang(self, note: Callable[..., None], acked: Consumer[Any] | None = None) -> None:
        """Wait to be killed, once the client has been told of what was ``acked``.

        Told to stop instead, it leaves: the broker would keep a place for one that just ends.
        """
        if acked is not None:
            acked.flush()
        note("stuck")
        self._stop.wait()
        raise SystemExit

    def _note_assignment(self, consumer: Consumer[Any]) -> None:
        owned = consumer.partitions
        if owned != self._owned:
            self._owned = owned
            self._note("assign", partitions=tuple(sorted(owned)))

    def _note(self, kind: Any, **fields: Any) -> None:
        self._recorder.event(kind, self._role.name, group=self._role.group, **fields)
