"""Waiting for the admin client's answers, so that no question outlives its client."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from confluent_kafka import KafkaException

from gearshift_kafka.errors import TRANSIENT

__all__ = ["REQUEST_S", "answer"]

T = TypeVar("T")

#: The ``request_timeout`` to ask with. The client then always answers, if only with an error.
REQUEST_S = 3.0

_ANSWER_S = 6.0
_PATIENCE_S = 8.0
_AGAIN_S = 0.1


def answer(ask: Callable[[], Future[T]]) -> T:
    """The result of what ``ask`` asks, again while the broker is not ready for it.

    A coordinator loads for a moment after its broker has started, which the client does not wait
    for. Blocks for about 10 s at most; raises KafkaException. A question that is still open when
    its client is let go of can crash the process (measured), hence ``REQUEST_S``.
    """
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return ask().result(_ANSWER_S)
        except KafkaException as error:
            if error.args[0].code() not in TRANSIENT or time.monotonic() > deadline:
                raise
            time.sleep(_AGAIN_S)
