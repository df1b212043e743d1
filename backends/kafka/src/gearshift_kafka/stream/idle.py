"""Finding out that a group member owns nothing, which the client does not say."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from concurrent.futures import Future

from confluent_kafka import Consumer, ConsumerGroupState
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._group import ConsumerGroupDescription

from gearshift_kafka.admin_client import REQUEST_S

__all__ = ["IdleCheck"]

_FIRST_AFTER_S = 0.5
_AGAIN_AFTER_S = 0.5


class IdleCheck:
    """Asks the coordinator whether this member was given no partition. One thread.

    With KIP-848 the client makes no callback for an empty assignment, and its own state looks the
    same as before joining (measured). The coordinator knows; it is asked in the background, and
    only until something is known.
    """

    def __init__(self, connect: Callable[[], AdminClient], group: str) -> None:
        self._connect = connect
        self._group = group
        self._client: AdminClient | None = None
        self._answer: Future[ConsumerGroupDescription] | None = None
        self._due = time.monotonic() + _FIRST_AFTER_S

    def owns_nothing(self, consumer: Consumer) -> bool:
        """True once the coordinator has said so. Never blocks."""
        if self._answer is None:
            if time.monotonic() >= self._due:
                self._ask()
            return False
        if not self._answer.done():
            return False
        answer, self._answer = self._answer, None
        self._due = time.monotonic() + _AGAIN_AFTER_S
        return answer.exception() is None and _is_idle(answer.result(), consumer.memberid())

    def close(self) -> None:
        """Let the connection go; it is not needed once something is known.

        Waits for the question that is open, if any: for ``REQUEST_S`` at most.
        """
        if self._answer is not None:
            with contextlib.suppress(TimeoutError):
                self._answer.exception(REQUEST_S + 1.0)
        self._client = self._answer = None

    def _ask(self) -> None:
        self._client = self._client or self._connect()
        answers = self._client.describe_consumer_groups([self._group], request_timeout=REQUEST_S)
        self._answer = answers[self._group]


def _is_idle(group: ConsumerGroupDescription, member_id: str | None) -> bool:
    if group.state is not ConsumerGroupState.STABLE:
        return False  # its assignment is still being worked out
    for member in group.members:
        if member.member_id == member_id:
            target = member.target_assignment
            coming = target is not None and bool(target.topic_partitions)
            return not member.assignment.topic_partitions and not coming
    return False
