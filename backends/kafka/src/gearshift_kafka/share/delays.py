"""Where in the delay topic a retry waits, and what its record says besides the message.

The topic's partitions are a row of delays, each twice the last, and a retry waits in the first
that is as long as its own. A partition is read in order, so a retry waits behind others for at
most twice its delay, and whoever moves due ones on needs to look at one record only.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Final, NamedTuple

from confluent_kafka import Message as Record

from gearshift.message import Message
from gearshift_kafka.wire import RecordHeaders, decode, encode_headers, headers_of

__all__ = ["STEPS", "Past", "copy_headers", "due_s", "step_of", "unpack", "without_due"]

_FIRST_S = 0.1

#: The last step is 9.7 days; the longest delay that core asks for is a week.
STEPS: Final = 24

_ATTEMPTS = "gearshift-attempts"
_RETURNS = "gearshift-returns"
_TIME = "gearshift-timestamp-ms"
_DUE = "gearshift-due-ms"


def step_of(delay_s: float) -> int:
    """The partition for a delay."""
    return next((n for n in range(STEPS) if delay_s <= _FIRST_S * 2**n), STEPS - 1)


class Past(NamedTuple):
    """What a message has had before it was stored again.

    ``returns`` are the deliveries that ended without a word: mostly it only lay in the buffer of a
    consumer that closed, sometimes its worker died.
    """

    attempts: int = 0
    returns: int = 0


def copy_headers(message: Message, past: Past, *, delay_s: float) -> RecordHeaders:
    """The headers of a message with that ``past`` which is due after ``delay_s``."""
    headers = encode_headers(message)
    headers.append((_ATTEMPTS, str(past.attempts)))
    headers.append((_RETURNS, str(past.returns)))
    if message.timestamp_ms is not None:
        # Not in the record's own place: retention would take an old message for an old record.
        headers.append((_TIME, str(message.timestamp_ms)))
    headers.append((_DUE, str(round((time.time() + delay_s) * 1000))))
    return headers


def due_s(record: Record) -> float:
    """When a record of the delay topic is due, in seconds since 1970."""
    return (_number(headers_of(record), _DUE) or 0) / 1000


def without_due(record: Record) -> RecordHeaders:
    """The headers with which a due record goes on."""
    return [pair for pair in headers_of(record) if pair[0] != _DUE]


def unpack(record: Record) -> tuple[Message, Past]:
    """The message of a record of the retry topic, and its past."""
    message, headers = decode(record), headers_of(record)
    attempts = _number(headers, _ATTEMPTS)
    if attempts is None:
        return message, Past()
    past = Past(attempts, _number(headers, _RETURNS) or 0)
    return replace(message, timestamp_ms=_number(headers, _TIME)), past


def _number(headers: Iterable[tuple[str, str | bytes | None]], name: str) -> int | None:
    text = next((value for key, value in headers if key == name), None)
    try:
        return None if text is None else int(text)
    except ValueError:
        return None
