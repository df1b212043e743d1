"""A received message in the user's hands, to be settled once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from gearshift._core.consuming.entry import Entry
from gearshift._core.consuming.retry import checked_delay_s
from gearshift._core.consuming.subscription import Subscription
from gearshift.errors import AlreadySettled, StaleDelivery
from gearshift.message import Headers, Key, Message, Position

__all__ = ["BaseDelivery", "Delivery"]

T = TypeVar("T")

_UNDECODED: Any = object()

#: Guards ``Delivery._settling``. Held for an instant, so one for all deliveries will do.
_claiming = threading.Lock()


class BaseDelivery(Generic[T]):
    """One delivery of a message, without a way to settle it.

    ``attempt`` counts from 1 as far as is known: exactly where the backend declares it, else what
    this consumer saw. ``redelivered`` is True where it is known to have been delivered before,
    None where the broker cannot tell.
    """

    __slots__ = (
        "_entry", "_settling", "_subscription", "_value", "attempt", "outcome", "redelivered",
    )  # fmt: skip

    def __init__(self, subscription: Subscription, entry: Entry) -> None:
        self._subscription = subscription
        self._entry = entry
        self._value: T = _UNDECODED
        self._settling = False
        self.attempt: int = entry.attempts
        self.redelivered: bool | None = True if entry.retries else entry.redelivered
        #: How it was settled: "ack", "retry" or "reject". None before, and if settling failed.
        self.outcome: str | None = None

    @property
    def message(self) -> Message:
        """The message as it came."""
        return self._entry.message

    @property
    def value(self) -> T:
        """The decoded body; None for a tombstone. Raises DecodeError."""
        if self._value is _UNDECODED:
            self._value = self._subscription.policy.decode(self._entry.message)
        return self._value

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
        with _claiming:
            if self._settling or self.outcome is not None:
                how = f"with {self.outcome}()" if self.outcome else "by another thread"
                raise AlreadySettled(
                    f"message {self.id!r} was settled before, {how}", channel=self.channel
                )
            self._settling = True
        tell = self._subscription.listeners.settled
        begun_at = 0.0 if tell is None else time.perf_counter()
        outcome = None
        try:
            outcome = self.outcome = settle(self._entry, *arguments)
        except StaleDelivery:
            outcome = "stale"
            raise
        finally:
            self._settling = False
            if tell is not None and outcome is not None:
                took_s = time.perf_counter() - begun_at
                tell(delivery=self, outcome=outcome, reason=reason, took_s=took_s)

    def __repr__(self) -> str:
        state = self.outcome or "unsettled"
        return f"<Delivery {self.id!r} of {self.channel!r}, attempt {self.attempt}, {state}>"


class Delivery(BaseDelivery[T]):
    """One delivery of a message. Settle it with ``ack``, ``retry`` or ``reject``, from any thread.

    ``gearshift.aio`` has one whose methods are awaited.
    """

    __slots__ = ()

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
