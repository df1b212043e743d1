"""Attempts, retries and dead letters of what a consumer receives."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gearshift._core.consuming.dead_letters import REDRIVE_GROUP, DeadLetters, redriven_to, revived
from gearshift._core.consuming.entry import Entry
from gearshift._core.consuming.gathering import Gathering
from gearshift._core.consuming.loop import ConsumerLoop
from gearshift._core.consuming.retry import RetryPolicy
from gearshift._core.consuming.suspects import is_given_up
from gearshift._core.consuming.user_side import UserSide
from gearshift._core.listeners import Listeners
from gearshift._core.logs import LimitedLog
from gearshift.driver import Settlement
from gearshift.errors import GearshiftError, MessageTooLarge, StaleDelivery
from gearshift.message import Message
from gearshift.stats import ReceiveStats

__all__ = ["ConsumerPolicy", "Subscription"]

log = logging.getLogger("gearshift.consumer")


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerPolicy:
    """Settings of a consumer, and functions that depend on them.

    ``decode`` gives a message's value. ``holds_retries`` says for a delay in seconds whether the
    portable layer must keep a retried message itself, because the backend cannot. One that
    ``inspects`` is a tool's. One that ``observes`` also sees what was redriven to one group.
    """

    backend: str
    channel: str
    group: str
    decode: Callable[[Message], Any]
    retry: RetryPolicy
    dead_letters: DeadLetters | None
    holds_retries: Callable[[float], bool]
    can_seek: bool
    inspects: bool = False
    observes: bool = False


class Subscription:
    """Receives and settles for a ``Consumer`` and its deliveries, by the policy. Any thread.

    A bus remembers this and not the Consumer, so that it notices a Consumer that is dropped.
    """

    def __init__(
        self, loop: ConsumerLoop, users: UserSide, policy: ConsumerPolicy, listeners: Listeners
    ) -> None:
        self.listeners = listeners
        self.loop = loop
        self.users = users
        self.policy = policy
        self.closed = False
        self._drains = False
        self.pid = os.getpid()
        self._log = LimitedLog(log)

    def receive(
        self, max_messages: int, timeout_s: float | None, batch: Gathering | None = None
    ) -> list[Entry]:
        """Entries for the user, or for ``batch``, as UserSide.next gives them.

        One that is dead or has used up its attempts is buried instead, and one that was redriven to
        another group is settled unseen.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        left_s = timeout_s
        while True:
            entries = self.users.next(max_messages, left_s, batch)
            live, ended = self.sort(entries)
            if batch is not None:
                batch.drop(len(entries) - len(live))
            for entry, reason in ended:
                self.bury(entry, reason)
            if live or not entries:
                return live
            left_s = None if deadline is None else max(0.0, deadline - time.monotonic())

    def sort(self, entries: Sequence[Entry]) -> tuple[list[Entry], list[tuple[Entry, str]]]:
        """Entries for the user, and those to ``bury`` with the reason. Does not block."""
        live: list[Entry] = []
        ended: list[tuple[Entry, str]] = []
        most = self.policy.retry.max_attempts
        for entry in entries:
            if entry.message.has_header(REDRIVE_GROUP) and self._is_for_others(entry):
                continue
            reason = entry.dead
            if reason is None and (entry.attempt or 1) + entry.retries > most:
                reason = self._given_up(entry)
            if reason is None:
                live.append(entry)
            else:
                ended.append((entry, reason))
        return live, ended

    def bury(self, entry: Entry, reason: str) -> None:
        """Move an entry to the dead letters that nobody was given. Blocks as ``reject``."""
        with contextlib.suppress(StaleDelivery):  # its connection has gone since
            self.reject(entry, reason)

    def is_last(self, entry: Entry) -> bool:
        """True if a retry would move ``entry`` to the dead letters."""
        return self.policy.retry.exhausted(entry.attempts)

    # ── settling: each returns the outcome ──

    def ack(self, entry: Entry) -> str:
        """See Delivery.ack."""
        self.users.ack(entry)
        return "ack"

    def retry(self, entry: Entry, delay_s: float | None, reason: str | None) -> str:
        """See Delivery.retry."""
        policy = self.policy
        if self.is_last(entry):
            why = f": {reason}" if reason else ""
            return self.reject(entry, f"gave up after {entry.attempts} attempts{why}")
        attempt = entry.attempts  # the one that failed: keeping the message counts the next
        wait_s = policy.retry.wait_s(attempt, delay_s)
        if policy.holds_retries(wait_s):
            self.users.hold(entry, wait_s)
        else:
            self.users.settle(entry, Settlement.RETRY, wait_s)
        self.listeners.retry(
            channel=policy.channel, group=policy.group, message=entry.message,
            attempt=attempt, max_attempts=policy.retry.max_attempts,
            delay_s=wait_s, reason=reason,
        )  # fmt: skip
        return "retry"

    def reject(self, entry: Entry, reason: str) -> str:
        """See Delivery.reject."""
        self.users.require_live(entry)
        if self.policy.dead_letters is None:
            self._log.error(
                "channel %r: message %r is rejected, and there is no dead-letter channel: %r",
                self.policy.channel,
                entry.message.id,
                reason,
            )
            entry.refused = True
            self.users.settle(entry, Settlement.DISCARD)
            return "reject"
        self.policy.dead_letters.send(
            entry.message,
            reason=reason,
            attempts=entry.attempts,
            on_done=lambda error: self._buried(entry, reason, error),
            brief=isinstance(entry.obstacle, MessageTooLarge),
        )
        return "reject"

    # ── the whole ──

    def stats(self) -> ReceiveStats:
        """Counters of what was received and settled, and the present state."""
        return replace(self.users.snapshot(), reconnects=self.loop.reconnects)

    def stop_receiving(self) -> None:
        """See Consumer.stop_receiving."""
        if not self._drains:
            self._drains = True
            self.loop.on_connection("draining")
        self.users.close()

    def close(self, timeout_s: float) -> list[str | None]:
        """See Consumer.close."""
        if self.closed or os.getpid() != self.pid:
            return []
        self.closed = True
        self.stop_receiving()
        if self.policy.dead_letters is not None:
            self.policy.dead_letters.close(timeout_s)
        unsettled = [entry.message.id for entry in self.users.in_hand()]
        self.loop.stop(timeout_s)
        if unsettled and not self.policy.inspects:
            log.warning(
                "channel %r: closed with %d unsettled deliveries, which will come again",
                self.policy.channel,
                len(unsettled),
            )
        return unsettled

    # ── inside ──

    def _buried(self, entry: Entry, reason: str, error: GearshiftError | None) -> None:
        policy, wait_s = self.policy, 0.0
        try:
            if error is None:
                self.users.settle(entry, Settlement.DISCARD)
            else:
                entry.dead = reason
                entry.burials += 1
                wait_s = policy.retry.burial_wait_s(entry.burials)
                self.users.hold(entry, wait_s, error)
        except StaleDelivery:
            self._log.warning("channel %r: message %r was stale", policy.channel, entry.message.id)
            return
        self.listeners.dead_letter(
            backend=policy.backend, channel=policy.channel, group=policy.group,
            message=entry.message, reason=reason, error=error, delay_s=wait_s,
        )  # fmt: skip

    def _is_for_others(self, entry: Entry) -> bool:
        group = redriven_to(entry.message)
        if group is None or self.policy.observes:
            return False
        if group == self.policy.group:
            entry.message = revived(entry.message)  # as it was before it died
            return False
        self.users.settle(entry, Settlement.ACK)
        return True

    def _given_up(self, entry: Entry) -> str | None:
        """The reason not to hand out ``entry`` for another attempt; None if there is none."""
        if not is_given_up(entry.attempts, entry.lost, self.policy.retry.max_attempts):
            return None
        deaths = f": {entry.lost} consumers died with it" if entry.lost else ""
        entry.attempt = entry.attempts - 1  # the one that it came for is not given
        return f"gave up after {entry.attempts} attempts{deaths}"
