"""A received message in the user's hands, to be settled once."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import msgspec

from gearshift._core.consuming.entry import Entry
from gearshift._core.consuming.retry import checked_delay_s
from gearshift._core.consuming.subscription import Subscription
from gearshift.errors import AlreadySettled, StaleDelivery
from gearshift.message import Headers, Key, Message, Position

__all__ = ["BaseDelivery", "Delivery"]

T = TypeVar("T")

_UNDECODED: Any = object()


class BaseDelivery(msgspec.Struct, Generic[T], eq=False):
    """One delivery of a message, without a way to settle it.

    ``attempt`` counts from 1 as far as is known: exactly where the backend declares it, else what
    this consumer saw. ``redelivered`` is True where it is known to have been delivered before,
    None where the broker cannot tell. ``outcome`` is how it was settled: "ack", "retry" or
    "reject"; None before, and if settling failed.
    """

    _subscription: Subscription
    _entry: Entry
    _retries: int = 0  # those of the entry when it was handed out
    outcome: str | None = None
    _value: Any = _UNDECODED
    _claim: bool = True  # gone while a thread settles it, and once it is settled

    @property
    def attempt(self) -> int:
        """The number of this attempt, from 1."""
        return (self._entry.attempt or 1) + self._retries

    @property
    def redelivered(self) -> bool | None:
        """True if it was delivered before, None if that is not known."""
        return True if self._retries else self._entry.redelivered

    @property
    def message(self) -> Message:
        """The message as it came."""
        return self._entry.message

    @property
    def value(self) -> T:
        """The decoded body; None for a tombstone. Raises DecodeError."""
        if self._value is _UNDECODED:
            self._value = self._subscription.policy.decode(self._entry.message)
        value: T = self._value
        return value

    @property
    def body(self) -> bytes | None:
        """The body as it came."""
        return self._entry.message.body

    @property
    def key(self) -> Key | None:
        """The key, or None: a str, or bytes where it is not UTF-8."""
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
        """The position in the log; None on a queue."""
        return self._entry.position

    @property
    def backend(self) -> str:
        """The name of the backend that it came through."""
        return self._subscription.policy.backend

    @property
    def channel(self) -> str:
        """The channel that it came from."""
        return self._subscription.policy.channel

    @property
    def group(self) -> str:
        """The group that it was delivered to."""
        return self._subscription.policy.group

    def _settle(
        self, settle: Callable[..., str], *arguments: object, reason: str | None = None
    ) -> None:
        try:
            del self._claim  # by one thread only, as an attribute goes once: cheaper than a lock
        except AttributeError:
            how = f"with {self.outcome}()" if self.outcome else "by another thread"
            raise AlreadySettled(
                f"message {self.id!r} was settled before, {how}", channel=self.channel
            ) from None
        try:
            if self._subscription.listeners.settled is None:
                self.outcome = settle(self._entry, *arguments)
            else:
                self._settle_and_tell(settle, arguments, reason)
        finally:
            if self.outcome is None:
                self._claim = True

    def _settle_and_tell(
        self, settle: Callable[..., str], arguments: tuple[object, ...], reason: str | None
    ) -> None:
        """Settle it, and tell the plugins how it ended and how long that took."""
        tell = self._subscription.listeners.settled
        assert tell is not None
        begun_at, outcome = time.perf_counter(), None
        try:
            outcome = self.outcome = settle(self._entry, *arguments)
        except StaleDelivery:
            outcome = "stale"
            raise
        finally:
            if outcome is not None:
                took_s = time.perf_counter() - begun_at
                tell(delivery=self, outcome=outcome, reason=reason, took_s=took_s)

    def __repr__(self) -> str:
        state = self.outcome or "unsettled"
        return f"<Delivery {self.id!r} of {self.channel!r}, attempt {self.attempt}, {state}>"


class Delivery(BaseDelivery[T]):
    """One delivery of a message. Settle it with ``ack``, ``retry`` or ``reject``, from any thread.

    ``gearshift.aio`` has one whose methods are awaited.
    """

    def ack(self) -> None:
        """Done: it is gone for this group. Does not block.

        The broker is told within 0.05 s, or by ``Consumer.flush`` and ``close``. Raises
        AlreadySettled, and StaleDelivery if it will come again because its connection, assignment
        or lease is gone.
        """
        self._settle(self._subscription.ack)

    def retry(self, delay_s: float | None = None, *, reason: str | None = None) -> None:
        """Not done: deliver it again after ``delay_s`` seconds (None: the channel's backoff).

        When ``max_attempts`` are used up it is rejected instead, and ``reason`` stands in its dead
        letter. Does not block. Raises as ``ack``, and UsageError for a delay that is not 0 to
        604800 seconds, after which it can still be settled.
        """
        checked_delay_s(delay_s)
        self._settle(self._subscription.retry, delay_s, reason, reason=reason)

    def reject(self, reason: str = "rejected") -> None:
        """It cannot be handled: move it to the dead letters with ``reason``.

        The original is settled once the dead letter is confirmed; if that fails it is kept here,
        unhandled, and its dead letter is tried again, with growing waits of up to a minute.
        May block for up to 30 s if the dead-letter channel takes nothing. Raises as ``ack``.
        """
        self._settle(self._subscription.reject, reason, reason=reason)
