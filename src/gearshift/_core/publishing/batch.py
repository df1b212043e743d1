"""Messages that are published together, with the state of each: no lock, no clock.

::

    NEW ──handed over──▶ HANDED ──handed over again──▶ MAYBE_STORED
                         │    ▲
              not stored ▼    │ handed over again
                       NOT_STORED
    each ── stored, refused, or at its deadline ──▶ DONE
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from threading import Lock

from gearshift._core.error_translation import ErrorTranslator
from gearshift.driver import Outcome, Stored
from gearshift.errors import (
    ConnectionFailed,
    GearshiftError,
    MessageTooLarge,
    OutcomeUnknown,
    UnknownChannel,
)
from gearshift.message import Message, Receipt, SendResult

__all__ = ["Batch", "State"]


class State(Enum):
    """Knowledge about one message of a batch."""

    NEW = auto()  #: no driver was given it
    HANDED = auto()  #: one driver was given it
    MAYBE_STORED = auto()  #: a driver before the present one may have stored it
    NOT_STORED = auto()  #: no driver has stored it, as the present one said
    DONE = auto()  #: it has its result


@dataclass(slots=True, eq=False)
class Batch:
    """Messages that are handed over together, and their results in the same order.

    The lock of the buffer that it was put into guards all of it. ``on_done`` is called once, on the
    buffer's thread, when every result is there.
    """

    messages: Sequence[Message]
    deadline: float
    on_done: Callable[[Batch], None] | None = None
    is_awaited: bool = False  # a thread waits for it from when it was put on
    states: list[State] = field(init=False)
    results: list[SendResult | None] = field(init=False)
    errors: list[GearshiftError] = field(default_factory=list)  # those of the results
    resent: int = 0  # receipts that say so
    remaining: int = field(init=False)  # messages without a result
    size: int = field(init=False)
    begun_at: float = 0.0
    handed_at: float | None = None
    waiter: Lock | None = None  # released when every result is there, if somebody waits
    sink: Callable[[Batch], object] | None = None  # called then; must not block

    def __post_init__(self) -> None:
        self.remaining = len(self.messages)
        self.states = [State.NEW] * self.remaining
        self.results = [None] * self.remaining
        self.size = sum(message.size for message in self.messages)

    @property
    def is_finished(self) -> bool:
        """True once every message has its result."""
        return not self.remaining

    def unresolved(self) -> list[int]:
        """Numbers of the messages that have no result yet."""
        return [number for number, state in enumerate(self.states) if state is not State.DONE]

    def hand_over(self, now: float) -> Sequence[int]:
        """Note that a driver is given what has no result yet; return the numbers of those."""
        is_first = self.handed_at is None and self.remaining
        self.handed_at = now
        if is_first:
            self.states = [State.HANDED] * len(self.messages)
            return range(len(self.messages))
        numbers = self.unresolved()
        for number in numbers:
            is_certain = self.states[number] is State.NOT_STORED
            self.states[number] = State.HANDED if is_certain else State.MAYBE_STORED
        return numbers

    def record(
        self, outcomes: Sequence[Outcome], channel: str, failures: ErrorTranslator
    ) -> GearshiftError | None:
        """Record what a driver reports; return the failure that ended the driver, if one did."""
        lost: GearshiftError | None = None
        messages, states, results = self.messages, self.states, self.results
        done, maybe, yes = State.DONE, State.MAYBE_STORED, Stored.YES
        for outcome in outcomes:
            number, stored = outcome.number, outcome.stored
            state = states[number]
            if state is done:
                continue  # the outcome came after the deadline
            result: SendResult
            if stored is yes:
                result = Receipt(
                    messages[number].id or "", channel, outcome.position, state is maybe
                )
                if state is maybe:
                    self.resent += 1
            else:
                failure = failures.translate(outcome.error or ConnectionFailed("no reason given"))
                if _ends_driver(failure):
                    lost = failure
                if _heals(failure):
                    if stored is Stored.NO and state is State.HANDED:
                        states[number] = State.NOT_STORED
                    continue
                is_certain = stored is Stored.NO and state is not maybe
                result = self._failed(number, failure, is_certain)
            states[number] = done
            results[number] = result
            self.remaining -= 1
        return lost

    def expire(self, not_stored: Callable[[], GearshiftError], cause: Exception | None) -> None:
        """Give what is open its result: ``not_stored()`` if that is certain, or OutcomeUnknown."""
        for number in self.unresolved():
            if self.states[number] in (State.NEW, State.NOT_STORED):
                error = not_stored()
            else:
                why = "no confirmation before the deadline"
                error = _unknown(self.messages[number], why, cause)
            self.errors.append(error)
            self.results[number] = error
            self.states[number] = State.DONE
        self.remaining = 0

    def _failed(self, number: int, failure: GearshiftError, is_certain: bool) -> GearshiftError:
        message = self.messages[number]
        if isinstance(failure, MessageTooLarge):
            failure = _sized(failure, message.size)
        if not is_certain and not isinstance(failure, OutcomeUnknown):
            failure = _unknown(message, str(failure), failure)
        self.errors.append(failure)
        return failure


def _unknown(message: Message, reason: str, cause: Exception | None) -> GearshiftError:
    error = OutcomeUnknown(
        f"message {message.id!r} may or may not be stored: {reason}",
        hint="send it again under the same id if a duplicate does less harm than a loss",
        message_id=message.id,
    )
    error.__cause__ = cause
    return error


def _sized(failure: MessageTooLarge, size: int) -> MessageTooLarge:
    """An error for one message, with its size, which drivers may not know."""
    sized = MessageTooLarge(
        f"{size} bytes with key and headers: {failure.message}",
        hint=failure.hint,
        backend=failure.backend,
        channel=failure.channel,
    )
    sized.__cause__ = failure.__cause__
    return sized


def _ends_driver(failure: GearshiftError) -> bool:
    """True if the driver can store nothing more, whatever becomes of this message."""
    reasons = (failure, failure.__cause__)
    return any(isinstance(reason, ConnectionFailed | UnknownChannel) for reason in reasons)


def _heals(failure: GearshiftError) -> bool:
    """True if a new driver may store it, over a channel that was declared again."""
    is_lost = isinstance(failure, ConnectionFailed) and failure.retryable
    return is_lost or isinstance(failure, UnknownChannel)
