"""Records of the delay topic: the partition in which a retry waits, and its headers.

The topic's partitions are a row of delays, each twice the last, and a retry waits in the first
that is as long as its own. A partition is read in order, so a retry waits behind others for at
most twice its delay, and whoever moves due ones on needs to look at one record only.
"""

from __future__ import annotations

import time
from typing import Final, NamedTuple

from confluent_kafka import Message as Record

from gearshift.message import Message
from gearshift_kafka.wire import (
    TIME_HEADER,
    RecordHeaders,
    decode,
    encode_headers,
    headers_of,
    number_in,
)

__all__ = ["STEPS", "Past", "copy_headers", "due_s", "step_of", "unpack", "with_due", "without_due"]

_FIRST_S = 0.1

#: The last step is 9.7 days; the longest delay that core asks for is a week.
STEPS: Final = 24

_ATTEMPTS = "gearshift-attempts"
_LOST = "gearshift-lost"
_DUE = "gearshift-due-ms"


def step_of(delay_s: float) -> int:
    """The partition for a delay."""
    return next((n for n in range(STEPS) if delay_s <= _FIRST_S * 2**n), STEPS - 1)


class Past(NamedTuple):
    """The history of a message that was stored again.

    ``attempts`` failed; ``lost`` are the deliveries since that ended without a word, because a
    process died or a lock was over.
    """

    attempts: int = 0
    lost: int = 0


def copy_headers(message: Message, past: Past) -> RecordHeaders:
    """The headers of a message with that ``past``."""
    # With its time, for a copy is a record of its own: retention counts from when it was stored.
    headers = encode_headers(message, with_time=True)
    headers.append((_ATTEMPTS, str(past.attempts)))
    headers.append((_LOST, str(past.lost)))
    return headers


def with_due(headers: RecordHeaders, delay_s: float) -> RecordHeaders:
    """These headers for a message that is due after ``delay_s``."""
    return [*headers, (_DUE, str(round((time.time() + delay_s) * 1000)))]


def due_s(record: Record) -> float:
    """The time at which a record of the delay topic is due, in seconds since 1970."""
    return (number_in(headers_of(record), _DUE) or 0) / 1000


def without_due(record: Record) -> RecordHeaders:
    """The headers with which a due record goes on."""
    return [pair for pair in headers_of(record) if pair[0] != _DUE]


def unpack(record: Record) -> tuple[Message, Past]:
    """The message of a record that was stored again, and its past."""
    message, headers = decode(record), headers_of(record)
    attempts = number_in(headers, _ATTEMPTS)
    if attempts is None:
        return message, Past()
    past = Past(attempts, number_in(headers, _LOST) or 0)
    return message.replace(timestamp_ms=number_in(headers, TIME_HEADER)), past
