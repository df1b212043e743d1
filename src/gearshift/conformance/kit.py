"""The kit that a behaviour works with: it breaks, waits, claims, and drains at the end."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from signal import SIGKILL
from typing import Any

from gearshift._observe.waiting import remaining, status_of, wait_until
from gearshift.conformance.checkers import Violation, check
from gearshift.conformance.clients import Clients
from gearshift.conformance.harness import BrokerProcess, Faults, Harness
from gearshift.conformance.history import Event, Kind
from gearshift.conformance.proxy import Proxy
from gearshift.conformance.recording import RecordingConsumer
from gearshift.conformance.view import View
from gearshift.conformance.worker import ConsumerProcess
from gearshift.delivery import Delivery
from gearshift.errors import GearshiftError

__all__ = ["Broken", "Kit"]

_LOOK_S = 0.1


class Broken(AssertionError):
    """A claim that does not hold: the violations that show it."""

    def __init__(self, violations: list[Violation]) -> None:
        self.violations = violations
        shown = [str(violation) for violation in violations[:10]]
        more = len(violations) - len(shown)
        super().__init__("\n".join(shown + ([f"and {more} more"] if more > 0 else [])))


class Kit(Clients):
    """One run of one behaviour: it breaks things, waits for events and claims what must be so."""

    def __init__(self, harness: Harness) -> None:
        super().__init__(harness)
        self.broken = 0  #: how often something was broken on purpose

    def many(self, count: int) -> int:
        """``count`` at the harness's pace, at least 10."""
        return max(10, int(count * self.harness.pace))

    # ── what a behaviour breaks ──

    @property
    def faults(self) -> Faults:
        """The parts that may be broken, for a behaviour that needs one."""
        assert self.harness.faults is not None
        return self.harness.faults

    @property
    def broker(self) -> BrokerProcess:
        """The broker, for a behaviour that needs it."""
        assert self.faults.broker is not None
        return self.faults.broker

    @property
    def cable(self) -> Proxy:
        """The network, for a behaviour that needs it."""
        assert self.faults.cable is not None
        return self.faults.cable

    def kill(self, worker: ConsumerProcess) -> None:
        """SIGKILL ``worker`` and adopt its events."""
        self.fault("SIGKILL of a worker")
        worker.signal(SIGKILL)
        worker.wait(self.patience_s)
        self.adopt(worker)

    def fault(self, note: str) -> None:
        """Record that something is being broken now."""
        self.broken += 1
        self.history.add(Event(kind=Kind.FAULT, note=note))

    # ── waiting for events ──

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Wait until ``condition`` holds. Raises DeadlineExceeded after ``patience_s``."""
        wait_until(condition, what, self.patience_s)

    def take(self, consumer: RecordingConsumer, count: int) -> list[Delivery[Any]]:
        """Exactly ``count`` deliveries. Raises Broken("lost") after ``patience_s``."""
        deadline = time.monotonic() + self.patience_s
        taken: list[Delivery[Any]] = []
        while len(taken) < count and time.monotonic() < deadline:
            taken += consumer.receive(count - len(taken), timeout_s=_LOOK_S)
        self.require(
            len(taken) == count, "lost", f"{consumer.who} got {len(taken)} of {count} messages"
        )
        return taken

    def one(self, consumer: RecordingConsumer) -> Delivery[Any]:
        """The next delivery; see ``take``."""
        return self.take(consumer, 1)[0]

    def ack(self, consumer: RecordingConsumer, count: int) -> list[str]:
        """Take and ack exactly ``count``, and flush; their ids in order."""
        deliveries = self.take(consumer, count)
        for delivery in deliveries:
            consumer.ack(delivery)
        consumer.flush()
        return [str(delivery.id) for delivery in deliveries]

    def join(self, channel: str, group: str = "g") -> None:
        """Have ``group`` come and go, so that a stream knows its positions."""
        self.consumer(channel, group).close()

    def depth(self, channel: str, group: str) -> int | None:
        """The messages that ``group`` has still to settle; None where the backend cannot tell."""
        if not self.capabilities.depth:
            return None
        return remaining(status_of(self.any_bus(channel), channel, group))

    # ── claims ──

    def require(self, holds: object, checker: str, text: str) -> None:
        """Raise Broken under the name ``checker`` unless ``holds``."""
        if not holds:
            raise Broken([Violation(checker, text)])

    @contextlib.contextmanager
    def refusal(
        self, kind: type[GearshiftError] | tuple[type[GearshiftError], ...], checker: str, what: str
    ) -> Iterator[None]:
        """The block must raise ``kind``; otherwise Broken under the name ``checker``."""
        try:
            yield
        except kind:
            return
        except GearshiftError as error:
            text = f"{what} raised {type(error).__name__}: {error}"
            raise Broken([Violation(checker, text)]) from error
        raise Broken([Violation(checker, f"{what} did not raise")])

    def verify(self, channel: str, *groups: str, expected: frozenset[str] | None = None) -> None:
        """Close what is open on ``channel``, drain it with fresh clients, run every checker."""
        for made in self.made:
            if isinstance(made, RecordingConsumer) and made.consumer.channel == channel:
                made.close()
        violations: list[Violation] = []
        for group in groups or ("g",):
            self.drain(channel, group, expected)
            violations += check(self._view(channel, group, expected))
        if violations:
            raise Broken(violations)

    def drain(self, channel: str, group: str = "g", expected: frozenset[str] | None = None) -> None:
        """Receive and ack, as a fresh client, all that is left for ``group``."""
        view = self._view(channel, group, expected)
        with self.consumer(channel, group) as consumer:
            quiet_since = time.monotonic()
            deadline, seen = quiet_since + self.patience_s, set[str | None]()
            while time.monotonic() < deadline:
                if deliveries := consumer.receive(200, timeout_s=_LOOK_S):
                    for delivery in deliveries:
                        consumer.ack(delivery)
                    quiet_since = time.monotonic()
                    if not seen.issuperset(ids := [delivery.id for delivery in deliveries]):
                        seen.update(ids)
                        deadline = quiet_since + self.patience_s  # a backlog may take longer
                    continue
                consumer.flush()
                quiet_s = time.monotonic() - quiet_since
                if self._is_drained(view, quiet_s):
                    return

    def letters(
        self, channel: str, *, asking: RecordingConsumer | None = None
    ) -> list[Delivery[Any]]:
        """All dead letters of ``channel``, acked; waits until there is one.

        A message that is not to be handed out any more becomes one when somebody asks for it:
        ``asking`` does so, and acks what it gets.
        """
        letters: list[Delivery[Any]] = []
        with self.connect().consumer(f"{channel}.dead", create=True) as consumer:
            deadline = time.monotonic() + self.patience_s
            while time.monotonic() < deadline:
                if asking is not None:
                    for delivery in asking.receive(100, timeout_s=_LOOK_S):
                        asking.ack(delivery)
                found = consumer.receive(100, timeout_s=0.3)
                for delivery in found:
                    delivery.ack()
                letters += found
                if letters and not found:
                    break
        return letters

    # ── inside ──

    def _view(self, channel: str, group: str, expected: frozenset[str] | None) -> View:
        return View(
            history=self.history,
            channel=channel,
            group=group,
            semantics=self.harness.semantics,
            capabilities=self.capabilities,
            expected=expected,
        )

    def _is_drained(self, view: View, quiet_s: float) -> bool:
        """Nothing is missing and nothing is left; or what is missing will not come any more."""
        missing = view.stored.keys() - self.history.finished(view.channel, view.group)
        depth = self.depth(view.channel, view.group)
        if missing:
            return depth == 0 and quiet_s > self.patience_s / 10
        return depth == 0 or (depth is None and quiet_s > 5 * _LOOK_S)
