"""pika's log lines about our connections: at DEBUG, under a name of ours.

pika logs every failed attempt to connect as half a dozen errors, and a lost connection with its
traceback, though it is not the one to judge: core says once that a connection was lost, and once
that it is back. The lines of other users of pika in this process, and how its loggers are set up,
stay as they are.
"""

from __future__ import annotations

import logging
import threading

__all__ = ["OURS", "hush"]

_log = logging.getLogger("gearshift.rabbitmq.client")


class _Ours(threading.local):
    """Whether this thread is inside pika for one of our connections."""

    inside = False


OURS = _Ours()


def _elsewhere(record: logging.LogRecord) -> bool:
    """The filter: False for a line of ours, which is handed on."""
    if not OURS.inside:
        return True
    if _log.isEnabledFor(logging.DEBUG):
        _log.debug("%s: %s", record.name, record.getMessage(), exc_info=record.exc_info)
    return False


def hush() -> None:
    """Have pika's loggers ask the filter. Again does nothing."""
    for name in list(logging.root.manager.loggerDict):
        if name == "pika" or name.startswith("pika."):
            logging.getLogger(name).addFilter(_elsewhere)
