"""The ProducerDriver of the memory backend: everything happens inside ``submit``."""

from __future__ import annotations

from collections.abc import Sequence

from gearshift.driver import OnOutcomes, Outcome, ProducerDriver, Stored
from gearshift.embedded.memory.channel import Channel
from gearshift.errors import Closed, GearshiftError
from gearshift.message import Message

__all__ = ["Producer"]


class Producer(ProducerDriver):
    """Stores messages at once; there is never anything in flight."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._closed = False

    def submit(self, messages: Sequence[Message], on_outcomes: OnOutcomes) -> None:
        try:
            outcomes = self._store(messages)
        except GearshiftError as error:
            outcomes = [Outcome(number, Stored.NO, None, error) for number in range(len(messages))]
        on_outcomes(outcomes)

    def _store(self, messages: Sequence[Message]) -> list[Outcome]:
        with self._channel.changed:
            if self._closed:
                raise Closed("this producer is closed")
            self._channel.require()
            outcomes = self._channel.publish(messages)
            self._channel.announce()
            return outcomes

    def close(self, timeout_s: float) -> None:
        self._closed = True
