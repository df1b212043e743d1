"""What goes on in channels and groups, looked at again and again.

The broker tells what waits; rates, and what handlers do, are told by the metrics pages of the
services that are named. What nobody tells is None.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gearshift.bus import Bus
from gearshift.driver import GroupStatus
from gearshift.operations.scraping import MetricsPages, Rates
from gearshift.telemetry.depths import TIMEOUT_S, Depths, Told

__all__ = ["Look", "Row", "Top"]

#: Answers of the broker that are older are not shown.
_OLD_AFTER_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A group of a channel at one moment; None is unknown, or has no meaning there.

    Rates are per second, of the services whose pages are read; ``change_per_s`` is how
    ``waiting`` changes at the broker. ``sent_per_s`` and ``dead_letters`` are of the channel.
    ``busy`` is how many messages handlers have in hand, of ``handler_limit``.
    """

    channel: str
    semantics: str
    group: str | None
    waiting: int | None = None
    in_flight: int | None = None
    change_per_s: float | None = None
    oldest_age_s: float | None = None
    consumers: int | None = None
    sent_per_s: float | None = None
    acked_per_s: float | None = None
    retried_per_s: float | None = None
    rejected_per_s: float | None = None
    busy: int | None = None
    handler_limit: int | None = None
    dead_letters: int | None = None


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen at one moment: ``rows``, and in sentences what could not be seen, and why."""

    rows: Sequence[Row]
    broker_error: Exception | None
    problems: Sequence[str]


class Top:
    """Looks at ``channels`` of ``bus``, and at the metrics pages of services. One thread at a time.

    Each look asks the broker for up to ``timeout_s`` seconds and goes on without it.
    """

    def __init__(
        self,
        bus: Bus,
        channels: Sequence[str],
        pages: MetricsPages,
        *,
        timeout_s: float = TIMEOUT_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._bus = bus
        self._channels = channels
        self._pages = pages
        self._depths = Depths(bus, channels, timeout_s)
        self._clock = clock
        self._waited: dict[tuple[str, str], tuple[float, int]] = {}

    def look(self) -> Look:
        """Look once. Rates are known from the second time on. Blocks for some seconds at most."""
        told, rates = self._depths.ask(), self._pages.read()
        rows = [row for name in self._channels for row in self._rows(name, told, rates)]
        problems = list(rates.problems)
        if told.error is not None:
            problems.insert(0, self._bus.config.masked(f"broker: {told.error}"))
        return Look(rows, told.error, problems)

    def _rows(self, channel: str, told: Told, rates: Rates) -> list[Row]:
        """A row per group that the broker or a service knows; one without group if none does."""
        of_channel = Row(
            channel=channel,
            semantics=self._bus.semantics(channel).value,
            group=None,
            sent_per_s=rates.per_s("messages_sent", channel),
            dead_letters=self._dead_letters(channel, told),
        )
        age_s = told.ages_s.get(channel, 0.0)
        states = {state.group: state for state in told.groups.get(channel, ())}
        if age_s > _OLD_AFTER_S:
            states = {name: GroupStatus(group=name) for name in states}
        rows = []
        for name in dict.fromkeys((*states, *rates.groups(channel))):
            state = states.get(name) or GroupStatus(group=name)
            known = _of_broker(state) | _of_services(channel, name, rates)
            change_per_s = self._change(channel, state, self._clock() - age_s)
            rows.append(replace(of_channel, group=name, change_per_s=change_per_s, **known))
        return rows or [of_channel]

    def _dead_letters(self, channel: str, told: Told) -> int | None:
        name = self._bus.config.channel(channel).dead_letter_name(channel)
        if name is None or told.ages_s.get(name, 0.0) > _OLD_AFTER_S:
            return None
        return told.dead_letters.get(name)

    def _change(self, channel: str, state: GroupStatus, told_at: float) -> float | None:
        """By how much per second what waits has grown since the answer before."""
        key = channel, state.group
        if state.waiting is None:
            self._waited.pop(key, None)
            return None
        before = self._waited.get(key)
        self._waited[key] = (told_at, state.waiting)
        if before is None or told_at <= before[0]:
            return None
        return (state.waiting - before[1]) / (told_at - before[0])


def _of_broker(state: GroupStatus) -> dict[str, Any]:
    return {
        "waiting": state.waiting,
        "in_flight": state.in_flight,
        "oldest_age_s": state.oldest_age_s,
        "consumers": state.consumers,
    }


def _of_services(channel: str, group: str, rates: Rates) -> dict[str, Any]:
    settled = {
        f"{word}_per_s": rates.per_s("messages_settled", channel, group, outcome)
        for outcome, word in (("ack", "acked"), ("retry", "retried"), ("reject", "rejected"))
    }
    return settled | {
        "busy": rates.now("in_hand_messages", channel, group),
        "handler_limit": rates.now("handler_limit", channel, group),
    }
