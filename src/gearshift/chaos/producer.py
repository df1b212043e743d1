"""A ProducerDriver whose connection is lost before a confirmation."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from gearshift.chaos.injector import ConnectionDropped, Injector
from gearshift.chaos.settings import Kind
from gearshift.driver import OnOutcomes, Outcome, ProducerDriver, Stored
from gearshift.driver.helpers import Wrapper
from gearshift.message import Message

__all__ = ["ChaosProducer"]


class ChaosProducer(Wrapper):
    """A ProducerDriver.

    One batch is the last: some of it is confirmed, more of it is stored, the rest is not. What
    comes after it is not stored either, as nothing may be stored before the rest is sent again.
    """

    def __init__(self, below: ProducerDriver, injector: Injector) -> None:
        super().__init__(below)
        self._injector = injector
        self._is_cut = False  # nothing more goes to the broker
        self._ended: ConnectionDropped | None = None

    @property
    def ended(self) -> Exception | None:
        below: Exception | None = self.inner.ended
        return self._ended or below

    def submit(self, messages: Sequence[Message], on_outcomes: OnOutcomes) -> None:
        self._submit(self.inner.submit, messages, on_outcomes)

    def submit_served(self, messages: Sequence[Message], on_outcomes: OnOutcomes) -> None:
        self._submit(self.inner.submit_served, messages, on_outcomes)

    def serve(self, done: Callable[[], bool], timeout_s: float) -> None:
        self.inner.serve(lambda: self._ended is not None or done(), timeout_s)

    def _submit(
        self,
        submit: Callable[[Sequence[Message], OnOutcomes], None],
        messages: Sequence[Message],
        on_outcomes: OnOutcomes,
    ) -> None:
        count = len(messages)
        if self._is_cut:
            error = self._ended or ConnectionDropped("chaos: connection lost")
            on_outcomes([Outcome(number, Stored.NO, None, error) for number in range(count)])
            return
        cut = next((n for n in range(count) if self._injector.strikes(Kind.SEND_UNCONFIRMED)), None)
        if cut is None:
            submit(messages, on_outcomes)
            return
        self._is_cut = True
        stored = self._injector.number(Kind.SEND_UNCONFIRMED, cut, count)

        def drop() -> None:
            text = f"before {count - cut} of {count} confirmations, stored are {stored} of {count}"
            self._ended = self._injector.drop(Kind.SEND_UNCONFIRMED, text)
            open_ones = range(cut, count)
            on_outcomes([Outcome(n, Stored.UNKNOWN, None, self._ended) for n in open_ones])

        if stored:
            submit(messages[:stored], _Confirmed(cut, stored, on_outcomes, drop))
        else:
            drop()


class _Confirmed:
    """Takes the outcomes of the stored ones; passes on the confirmed, and then calls ``drop``."""

    def __init__(
        self, confirmed: int, stored: int, on_outcomes: OnOutcomes, drop: Callable[[], None]
    ) -> None:
        self._confirmed = confirmed
        self._left = stored
        self._on_outcomes = on_outcomes
        self._drop = drop
        self._lock = threading.Lock()

    def __call__(self, outcomes: Sequence[Outcome]) -> None:
        known = [one for one in outcomes if one.number < self._confirmed]
        if known:
            self._on_outcomes(known)
        with self._lock:
            self._left -= len(outcomes)
            is_last = not self._left
        if is_last:
            self._drop()
