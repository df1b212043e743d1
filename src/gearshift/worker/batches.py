"""Batches of messages for one call of a handler: gathered, and told apart when it has ended."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

from gearshift import aio
from gearshift._core.consuming.gathering import Gathering
from gearshift.consumer import Consumer
from gearshift.delivery import Delivery
from gearshift.errors import Closed, UsageError
from gearshift.worker.call import Call
from gearshift.worker.dispatch import BatchFailed, Ending, ending_of

__all__ = ["apart", "endings", "gather", "gather_async"]


def endings(ending: Ending, deliveries: Sequence[Delivery[Any]]) -> list[Ending]:
    """What it means for each of ``deliveries`` that the handler of them all ended so.

    An error says nothing of the single message of several, so none is rejected for it: all come
    again, each in a batch of its own, where it says all.
    """
    if isinstance(ending.error, BatchFailed):
        try:
            failures = ending.error.by_place(deliveries)
        except UsageError as wrong:
            wrong.__cause__ = ending.error
            return [ending_of(wrong)] * len(deliveries)
        done = Ending(action="ack")
        return [
            ending_of(failures[place]) if place in failures else done
            for place in range(len(deliveries))
        ]
    if ending.action == "reject" and len(deliveries) > 1:
        reason = f"{type(ending.error).__name__}: {ending.reason}"
        ending = replace(ending, action="retry", reason=reason)
    return [ending] * len(deliveries)


def apart(
    call: Call, deliveries: Sequence[Delivery[Any]]
) -> tuple[Sequence[Delivery[Any]], list[tuple[Delivery[Any], Ending]]]:
    """The deliveries that ``call`` can be given, and how the others of a batch end.

    What cannot be decoded ends alone, before the handler is called.
    """
    if not call.is_batch or ("value" not in call.parameters and call.value_type is Any):
        return deliveries, []  # for one it shows in the call; others may not want the values
    able, unable = [], []
    for delivery in deliveries:
        try:
            call.value(delivery)
        except Exception as error:  # a codec's, too
            unable.append((delivery, ending_of(error)))
        else:
            able.append(delivery)
    return able, unable


def gather(consumer: Consumer[Any], most: int, linger_s: float) -> list[Delivery[Any]]:
    """Up to ``most`` deliveries, at the latest ``linger_s`` after the first. Blocks.

    Raises what ``Consumer.receive`` raises, but Closed only if there are none.
    """
    growing = _Growing(consumer, most, linger_s)
    while growing.wants_more():
        try:
            growing.add(growing.receive())
        except Closed:
            if not growing.deliveries:
                raise
            break
    return growing.deliveries


async def gather_async(
    receiving: aio.Consumer[Any], consumer: Consumer[Any], most: int, linger_s: float
) -> list[Delivery[Any]]:
    """As ``gather``, on an event loop: what ``receiving`` gives of ``consumer``."""
    growing = _Growing(consumer, most, linger_s)
    while growing.wants_more():
        try:
            received = await receiving._receive(growing.room, growing.left_s, growing.batch)
        except Closed:
            if not growing.deliveries:
                raise
            break
        growing.add(cast("list[Delivery[Any]]", received))
    return growing.deliveries


class _Growing:
    """The deliveries of a batch, and for how long it waits for more."""

    def __init__(self, consumer: Consumer[Any], most: int, linger_s: float) -> None:
        self.batch = Gathering(most)
        self.deliveries: list[Delivery[Any]] = []
        self._consumer = consumer
        self._linger_s = linger_s
        self._until: float | None = None

    @property
    def room(self) -> int:
        return self.batch.most - self.batch.taken

    @property
    def left_s(self) -> float | None:
        return None if self._until is None else max(0.0, self._until - time.monotonic())

    def wants_more(self) -> bool:
        """False once it is complete, or nothing can come that would join it."""
        if not self.deliveries:
            return True
        return not self.batch.is_complete and not self._consumer._users.is_stalled()

    def receive(self) -> list[Delivery[Any]]:
        consumer = self._consumer
        entries = consumer._subscription.receive(self.room, self.left_s, self.batch)
        return consumer._handed_out(entries, Delivery)

    def add(self, received: list[Delivery[Any]]) -> None:
        """Take on what came; if nothing did, its time is over."""
        if self._until is None:
            self._until = time.monotonic() + self._linger_s
        self.deliveries += received
        self.batch.is_complete |= not received
