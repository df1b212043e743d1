"""Samples in a trial's event log: what the broker tells of a group, and a process' memory."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path

from gearshift._observe.waiting import status_of
from gearshift.bus import Bus
from gearshift.compare.event_log import Recorder
from gearshift.driver import GroupStatus
from gearshift.errors import GearshiftError

__all__ = ["record_status", "watch_memory", "watch_status"]

_STATM = Path("/proc/self/statm")
_EVERY_S = 0.1


def record_status(bus: Bus, channel: str, group: str, recorder: Recorder) -> GroupStatus | None:
    """The group as the broker has it now, also recorded; None if it does not know it.

    It is recorded as of the middle between question and answer: a broker may take its time.
    """
    asked_ms = recorder.now_ms()
    status = status_of(bus, channel, group)
    at_ms = round((asked_ms + recorder.now_ms()) / 2, 3)
    for name in ("ready", "in_flight", "lag"):
        value = getattr(status, name, None)
        if value is not None:
            recorder.sample(f"{name}_messages", value, group=group, at_ms=at_ms)
    return status


def watch_status(
    bus: Bus, channel: str, group: str, recorder: Recorder, stop: threading.Event
) -> None:
    """Record the group's state until ``stop`` is set."""
    while not stop.wait(_EVERY_S):
        with contextlib.suppress(GearshiftError):
            record_status(bus, channel, group, recorder)


def watch_memory(who: str, recorder: Recorder, stop: threading.Event) -> None:
    """Record ``rss_bytes`` of this process until ``stop`` is set, where the system tells it."""
    if not _STATM.exists():
        return
    page = os.sysconf("SC_PAGE_SIZE")
    while not stop.wait(_EVERY_S):
        resident = int(_STATM.read_text().split()[1]) * page
        recorder.sample("rss_bytes", resident, who=who)
