"""Waiting for what a broker is bound to do or tell."""

from __future__ import annotations

import time
from collections.abc import Callable

from gearshift.bus import Bus
from gearshift.driver import GroupStatus
from gearshift.errors import DeadlineExceeded

__all__ = ["remaining", "status_of", "wait_until"]

_POLL_S = 0.01


def wait_until(
    condition: Callable[[], object],
    what: str,
    timeout_s: float,
    check: Callable[[], None] = lambda: None,
) -> None:
    """Block until ``condition`` holds. Raises DeadlineExceeded, naming ``what``.

    ``check`` is called in between and may raise.
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        check()
        if time.monotonic() > deadline:
            raise DeadlineExceeded(f"{what}: not within {timeout_s:g} s")
        time.sleep(_POLL_S)


def status_of(bus: Bus, channel: str, group: str) -> GroupStatus | None:
    """The group as the broker has it now; None if it does not know it."""
    return next((one for one in bus.groups(channel) if one.group == group), None)


def remaining(status: GroupStatus | None) -> int | None:
    """The messages that a group has still to settle; None where the broker cannot tell."""
    if status is None or status.lag is not None or status.ready is None:
        return None if status is None else status.lag
    return status.ready + (status.in_flight or 0)
