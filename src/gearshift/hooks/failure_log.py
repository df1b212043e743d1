"""The log lines about messages that failed: a plugin like any other."""

from __future__ import annotations

import logging

from gearshift._core.logs import LimitedLog
from gearshift.driver.plugin import hookimpl
from gearshift.errors import GearshiftError
from gearshift.message import Message

__all__ = ["FailureLog"]

_MOST = 1000  # characters of a reason


class FailureLog:
    """Logs retries and dead letters, a few lines a minute of each channel's group. Any thread."""

    def __init__(self) -> None:
        self._log = LimitedLog(logging.getLogger("gearshift.consumer"))

    @hookimpl
    def gearshift_retry(
        self, channel: str, group: str, message: Message, attempt: int, max_attempts: int,
        delay_s: float,
    ) -> None:  # fmt: skip
        self._log.info(
            "%s: message %r: attempt %d of %d failed, again in %.1f s",
            f"{channel}/{group}", message.id, attempt, max_attempts, delay_s,
        )  # fmt: skip

    @hookimpl
    def gearshift_dead_letter(
        self, channel: str, group: str, message: Message, reason: str,
        error: GearshiftError | None, delay_s: float,
    ) -> None:  # fmt: skip
        where = f"{channel}/{group}"
        if error is None:
            self._log.warning(
                "%s: message %r moved to the dead letters: %s", where, message.id, _line(reason)
            )
        else:
            self._log.error(
                "%s: the dead letter of message %r was not stored, and is tried again in %.1f s: "
                "%s",
                where, message.id, delay_s, error,
            )  # fmt: skip


def _line(text: str) -> str:
    """The beginning of ``text``, which may have come with a message, on one line of a log."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text[:_MOST])
