"""The QueueDriver of the memory backend."""

from __future__ import annotations

import time
from collections.abc import Sequence

from gearshift.driver import (
    ConsumerSpec,
    QueueDriver,
    Received,
    SettleFailure,
    Settlement,
    SettleRequest,
)
from gearshift.embedded.memory.channel import QueueChannel
from gearshift.embedded.memory.group import Entry, Group, Hand, Lease
from gearshift.errors import Closed, StaleDelivery, TopologyConflict, UnknownGroup

__all__ = ["QueueConsumer"]


class QueueConsumer(QueueDriver):
    """One consumer of one group. Its work goes back when it is closed; it cannot die alone."""

    def __init__(self, channel: QueueChannel, spec: ConsumerSpec) -> None:
        self._channel = channel
        self._spec = spec
        self._hand = Hand()
        self._woken = False
        self._closed = False
        with channel.changed:
            channel.require()
            self._group = self._join()
            self._group.hands.append(self._hand)

    def _join(self) -> Group:
        groups, name = self._channel.groups, self._spec.group
        if self._spec.ephemeral:
            if name in groups:
                raise TopologyConflict(f"group {name!r} exists; an ephemeral one needs a new name")
            groups[name] = Group()
        if name not in groups:
            raise UnknownGroup(f"channel {self._channel.name!r} has no group {name!r}")
        return groups[name]

    def receive(self, max_messages: int, timeout_s: float) -> Sequence[Received]:
        deadline = time.monotonic() + timeout_s
        channel = self._channel
        with channel.changed:
            while True:
                self._require_open()
                taken, due = self._claim(max_messages)
                left = deadline - time.monotonic()
                if taken or self._woken or left <= 0:
                    self._woken = False
                    return [_received(entry) for entry in taken]
                if due is not None:
                    left = min(left, max(0.001, due - channel.now()))
                channel.changed.wait(left)

    def _require_open(self) -> None:
        if self._closed:
            raise Closed("this consumer is closed")
        self._channel.require()

    def _claim(self, max_messages: int) -> tuple[list[Entry], float | None]:
        """Messages for this consumer; if none, also when a delayed one is due."""
        room = min(max_messages, self._spec.prefetch - len(self._hand.held))
        if room <= 0:
            return [], None
        return self._group.claim(self._hand, room, self._channel.now())

    def settle(self, requests: Sequence[SettleRequest]) -> Sequence[SettleFailure]:
        failures = []
        with self._channel.changed:
            for request in requests:
                lease: Lease = request.token
                if self._channel.deleted or not self._group.holds(self._hand, lease):
                    error = StaleDelivery("it went back to its group before it was settled")
                    failures.append(SettleFailure(lease, error))
                else:
                    self._settle(lease.entry, request)
            self._channel.announce()
        return failures

    def _settle(self, entry: Entry, request: SettleRequest) -> None:
        now = self._channel.now()
        match request.settlement:
            case Settlement.ACK | Settlement.DISCARD:
                self._channel.settled(self._group.finish(entry, now))
            case Settlement.RETRY:
                due = now + request.delay_s if request.delay_s > 0 else 0.0
                self._group.give_back(entry, due, now)
            case Settlement.RELEASE:
                entry.attempt -= 1
                self._group.give_back(entry, 0.0, now)

    def wake(self) -> None:
        with self._channel.changed:
            self._woken = True
            self._channel.changed.notify_all()

    def close(self, timeout_s: float) -> None:
        with self._channel.changed:
            if self._closed:
                return
            self._closed = True
            if self._channel.groups.get(self._spec.group) is not self._group:
                return  # the channel was deleted
            self._group.leave(self._hand, self._channel.now())
            if self._spec.ephemeral:
                self._channel.drop_group(self._spec.group)
            self._channel.announce()


def _received(entry: Entry) -> Received:
    token = Lease(entry, entry.handed)
    return Received(entry.shared.message, token, None, entry.attempt, entry.handed > 1)
