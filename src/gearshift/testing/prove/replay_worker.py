"""A worker of a story that is run on a broker: what it handles, and what it leaves undone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Mapping, Sequence
from functools import partial
from typing import Any

from gearshift.bus import Bus
from gearshift.consumer import Consumer
from gearshift.errors import StaleDelivery
from gearshift.hooks.registry import Hooks
from gearshift.message import Message, Semantics
from gearshift.misfortunes import may_overtake
from gearshift.testing.prove.interruption import Paused
from gearshift.testing.prove.replay_progress import Entry, Progress, Taken, Wanted
from gearshift.testing.prove.simulated import Group
from gearshift.worker.dispatch import Dispatcher, Ending

__all__ = ["Consumers", "ReplayWorker"]


class Consumers:
    """One consumer for each group, opened when it is first needed."""

    def __init__(self, worker: ReplayWorker, prefetch: int | None = None) -> None:
        self._worker = worker
        self._prefetch = prefetch
        self._open: dict[int, Consumer[Any]] = {}
        self._aside: list[Consumer[Any]] = []

    def of(self, number: int) -> Consumer[Any]:
        """That of the group ``number``."""
        if number not in self._open:
            self._open[number] = self._worker.consumer(number, self._prefetch)
        return self._open[number]

    def set_aside(self, number: int) -> None:
        """Another consumer gets what comes next; this one keeps what it has."""
        self._aside.append(self._open.pop(number))

    def flush(self) -> None:
        """Wait until the broker has what was settled."""
        for one in self._open.values():
            one.flush()

    def close(self) -> None:
        """What is not settled comes again."""
        for one in (*self._aside, *self._open.values()):
            one.close()


class ReplayWorker:
    """Handles what ``groups`` are given, with ``hooks`` around the handlers. One thread.

    ``channels`` has the channels of the story by the names that the handlers know. Every
    wait ends at ``deadline``, a time of the monotonic clock.
    """

    def __init__(
        self,
        bus: Bus,
        channels: Mapping[str, str],
        groups: Sequence[Group],
        hooks: Hooks,
        wanted: Wanted,
        deadline: float,
    ) -> None:
        self.progress = Progress()
        self._bus = bus
        self._channels = channels
        self._groups = groups
        self._wanted = wanted
        self._deadline = deadline
        self._loop = asyncio.Runner()
        self._dispatcher = Dispatcher(hooks, self._wait)
        self._producers = {name: bus.producer(own, create=True) for name, own in channels.items()}

    def store(self, channel: str, message: Message) -> None:
        """Send ``message`` if the app handles ``channel``. Any thread; blocks."""
        if channel not in self._producers:
            return
        for _ in range(self._expect(channel, message)):
            self._producers[channel].submit(message).result()

    def _expect(self, channel: str, message: Message) -> int:
        """Have each group of the channel handle it; how often it is to be stored."""
        entries = [
            (number, message.id)
            for number, group in enumerate(self._groups)
            if group.handler.channel == channel
        ]
        times, mine = 1, (self._wanted.number, message.id)
        if mine in entries and self._wanted.is_it(message):
            self.progress.wanted = mine
            times = 2 if self._wanted.is_stored_twice else 1
        self.progress.left += entries * times
        return times

    def consumer(self, number: int, prefetch: int | None) -> Consumer[Any]:
        """Another consumer of that group; by default one that takes no more than it handles."""
        handler = self._groups[number].handler
        return self._bus.consumer(
            self._channels[handler.channel],
            group=handler.group,
            value_type=handler.call.value_type,
            prefetch=prefetch or (100 if self.is_stream(number) else 1),
            create=True,
        )

    def is_stream(self, number: int) -> bool:
        """True if the group ``number`` is one of a stream."""
        return self._groups[number].situation.semantics is Semantics.STREAM

    def is_wanted(self, taken: Taken) -> bool:
        """True for the message of the story."""
        return taken.entry == self.progress.wanted

    def next(self, consumers: Consumers, held: Sequence[Taken] = ()) -> Taken:
        """A message of the group that is to handle the next one, but for those that are ``held``.

        Raises TimeoutError.
        """
        number, _ = self._others(held)[0]
        timeout_s = max(0.1, self._deadline - time.monotonic())
        found = consumers.of(number).receive(timeout_s=timeout_s)
        if not found:
            raise TimeoutError(f"no message came, {len(self.progress.left)} are missing")
        return Taken(number, found[0])

    def _others(self, held: Sequence[Taken]) -> list[Entry]:
        entries = [one.entry for one in held]
        return [one for one in self.progress.left if one not in entries]

    def reach(self) -> tuple[Consumers, Taken]:
        """The message of the story, and its consumers; all before it was handled and settled."""
        consumers = Consumers(self)
        while not self.is_wanted(taken := self.next(consumers)):
            self.handle(taken)
        consumers.flush()
        return consumers, taken

    # ── ways to handle it ──

    def handle(self, taken: Taken) -> None:
        """Handle and settle it."""
        self._settle(taken, self._run(taken))

    def done(self, taken: Taken) -> None:
        """Note how it was settled, for the first time."""
        if taken.entry not in self.progress.left:
            return
        self.progress.left.remove(taken.entry)
        if taken.delivery.outcome == "retry":
            self.progress.left.append(taken.entry)
        elif taken.delivery.outcome == "reject":
            group = self._groups[taken.number]
            message = taken.delivery.message
            self.progress.dead.append((group.handler.channel, message))
            if group.dead_letter is not None:
                self._expect(group.dead_letter, message)

    def handle_unacked(self, more: int) -> Consumers:
        """Handle the story's message, leave it unsettled, and on a stream handle ``more``."""
        consumers, taken = self.reach()
        self._run(taken)
        for _ in range(more if self.is_stream(taken.number) else 0):
            if self._others([taken]):
                self.handle(self.next(consumers, [taken]))
        consumers.flush()
        return consumers

    def handle_late(self, *, is_handled_first: bool) -> None:
        """Settle others first; the message is handled after them, or before and never settled.

        On a queue another consumer gets the others.
        """
        consumers, kept = self.reach()
        if is_handled_first:
            self._run(kept)
        if not self.is_stream(kept.number):
            consumers.set_aside(kept.number)
        held = [kept]
        while self._others(held):
            taken = self.next(consumers, held)
            if self._waits_for(taken, kept):
                held.append(taken)
            else:
                self.handle(taken)
        for taken in held[1:] if is_handled_first else held:
            self.handle(taken)
        consumers.close()

    def handle_with_another(self, line: int) -> None:
        """Handle the message up to a line of the user's, the next of another key, and its rest.

        Async handlers are tasks of one loop, which change places where they await.
        """
        consumers = Consumers(self, prefetch=100)
        early: list[Taken] = []  # the last of another key, where the broker gives it first
        while not self.is_wanted(taken := self.next(consumers, early)):
            if self._others([*early, taken]) == [self.progress.wanted]:
                early.append(taken)
            else:
                self.handle(taken)
        held = [taken]
        while _is_of_one_key(other := early.pop() if early else self.next(consumers, held), taken):
            held.append(other)
        if all(self._groups[one.number].handler.call.is_async for one in (taken, other)):
            self._handle_as_tasks(taken, other)
        else:
            paused = Paused(partial(self.handle, taken), line)
            paused.meanwhile(partial(self.handle, other))
        for one in held[1:]:
            self.handle(one)
        consumers.close()

    def close(self) -> None:
        """End its event loop, and its producers."""
        self._loop.close()
        for producer in self._producers.values():
            producer.close()

    # ── inside ──

    def _waits_for(self, taken: Taken, kept: Taken) -> bool:
        """True if the broker keeps the order of these two."""
        situation = self._groups[kept.number].situation
        same_key = kept.delivery.key is not None and kept.delivery.key == taken.delivery.key
        return taken.number == kept.number and not may_overtake(situation, same_key=same_key)

    def _run(self, taken: Taken) -> Ending:
        call = self._groups[taken.number].handler.call
        deliveries = [taken.delivery]
        return self._dispatcher.run(partial(call, deliveries), call.function, deliveries)

    def _handle_as_tasks(self, *both: Taken) -> None:
        async def run() -> list[Ending]:
            calls = [self._groups[one.number].handler.call for one in both]
            return await asyncio.gather(
                *(
                    self._dispatcher.run_async(
                        partial(call, [one.delivery]), call.function, [one.delivery]
                    )
                    for call, one in zip(calls, both, strict=True)
                )
            )

        for taken, ending in zip(both, self._loop.run(run()), strict=True):
            self._settle(taken, ending)

    def _settle(self, taken: Taken, ending: Ending) -> None:
        delivery = taken.delivery
        if delivery.outcome is None:
            try:
                ending.settle(delivery)
            except StaleDelivery:
                return  # somebody else has got it meanwhile
        self.done(taken)

    def _wait(self, awaitable: Awaitable[Any]) -> Any:
        async def awaited() -> Any:
            return await awaitable

        return self._loop.run(awaited())


def _is_of_one_key(one: Taken, other: Taken) -> bool:
    return one.number == other.number and one.delivery.key == other.delivery.key is not None
