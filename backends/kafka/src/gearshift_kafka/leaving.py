"""Leaving a consumer group before the client is closed."""

from __future__ import annotations

import contextlib
import time

from confluent_kafka import Consumer, KafkaException

__all__ = ["leave_and_close"]

_MOST = 500
_SLICE_S = 0.02

#: A client that has not let go of its partitions by then is closed as it is.
_PATIENCE_S = 5.0


def leave_and_close(consumer: Consumer) -> None:
    """Leave, have every callback made that is due, and close. Blocks, for 5 s more than the close.

    Without this the client's close makes them, while its own thread ends: the answer to what a
    callback asks, or to what the client asks behind it, can then be thrown away, and the process
    stands still for ever, since the interpreter's lock is held meanwhile (librdkafka #4884).
    Messages that come are thrown away. A static member must not call this: it would give up its
    place.
    """
    try:
        with contextlib.suppress(KafkaException):  # of a client that has failed
            consumer.unsubscribe()
            deadline = time.monotonic() + _PATIENCE_S
            consumer.consume(_MOST, 0)
            while consumer.assignment() and time.monotonic() < deadline:
                consumer.consume(_MOST, _SLICE_S)
    finally:  # whatever a callback raises
        consumer.close()
