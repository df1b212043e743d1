"""A received message in the user's hands, to be settled once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

from gearshift.errors import AlreadySettled
from gearshift.ledger import Entry
from gearshift.message import Headers, Message, Position

__all__ = ["Delivery"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

_UNDECODED: Any = object()


class Receiver(Protocol[T_co]):
    """What a delivery needs of the consumer that it came from; settling returns the outcome."""

    @property
    def channel(self) -> str: ...

    @property
    def group(self) -> str: ...

    def decode(self, message: Message) -> T_co: ...

    def ack(self, entry: Entry) -> str: ...

    def retry(self, entry: Entry, delay_s: float | None, reason: str | None) -> str: ...

    def reject(self, entry: Entry, reason: str) -> str: ...


class Delivery(Generic[T]):
    """One delivery of a message. Settle it with ``ack``, ``retry`` or ``reject``, from any thread.

    ``attempt`` counts from 1 as far as is known: exactly where the backend declares it, else what
    this consumer saw. ``redelivered`` is True where it is known to have been delivered before,
    None where the broker cannot tell.
    """

    __slots__ = ("_consumer", "_entry", "_value", "attempt", "outcome", "redelivered")

    def __init__(self, consumer: Receiver[T], entry: Entry) -> None:
        self._consumer = consumer
        self._entry = entry
        self._value: T = _UNDECODED
        self.attempt: int = entry.attempts
        self.redelivered: bool | None = True if entry.retries else entry.redelivered
        self.outcome: str | None = None  #: how it was settled: "ack", "retry" or "reject"

    @property
    def message(self) -> Message:
        """The message as it came."""
        return self._entry.message

    @property
    def value(self) -> T:
        """The decoded body; None for a tombstone. Raises DecodeError."""
        if self._value is _UNDECODED:
            self._value = self._consumer.decode(self._entry.message)
        return self._value

    @property
    def body(self) -> bytes | None:
        """The body as it came."""
        return self._entry.message.body

    @property
    def key(self) -> str | None:
        """The key, or None."""
        return self._entry.message.key

    @property
    def headers(self) -> Headers:
        """The headers; repeated names included."""
        return self._entry.message.headers

    @property
    def id(self) -> str | None:
        """The message id: the same on every copy. None if a foreign sender gave none."""
        return self._entry.message.id

    @property
    def position(self) -> Position | None:
        """Where it lies in the log; None on a queue."""
        return self._entry.position

    @property
    def channel(self) -> str:
        """The channel that it came from."""
        return self._consumer.channel

    @property
    def group(self) -> str:
        """The group that it was delivered to."""
        return self._consumer.group

    def ack(self) -> None:
        """Done: it is gone for this group. Does not block.

        The broker is told within 0.05 s, or by ``Consumer.flush`` and ``close``. Raises
        AlreadySettled, and StaleDelivery if it will come again because its connection, assignment
        or lease is gone.
        """
        self._settle("ack", self._consumer.ack)

    def retry(self, delay_s: float | None = None, *, reason: str | None = None) -> None:
        """Not done: deliver it again after ``delay_s`` seconds (None: the channel's backoff).

        When ``max_attempts`` are used up it is rejected instead, and ``reason`` stands in its dead
        letter. Does not block. Raises as ``ack``.
        """
        self._settle("retry", self._consumer.retry, delay_s, reason)

    def reject(self, reason: str = "rejected") -> None:
        """It cannot be handled: move it to the dead letters with ``reason``.

        The original is settled once the dead letter is confirmed; if that fails it comes again.
        May block for up to 30 s if the dead-letter channel takes nothing. Raises as ``ack``.
        """
        self._settle("reject", self._consumer.reject, reason)

    def _settle(self, outcome: str, settle: Callable[..., str], *arguments: object) -> None:
        if self.outcome is not None:
            raise AlreadySettled(
                f"message {self.id!r} was settled before, with {self.outcome}()",
                channel=self.channel,
            )
        self.outcome = outcome
        self.outcome = settle(self._entry, *arguments)

    def __repr__(self) -> str:
        state = self.outcome or "unsettled"
        return f"<Delivery {self.id!r} of {self.channel!r}, attempt {self.attempt}, {state}>"
